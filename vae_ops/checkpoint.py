"""Where a killed training goes on from: one file, replaced as a whole, tied to the one training that it belongs to.

A checkpoint is a safetensors file whose metadata hold everything that is not an array, as JSON; its name holds the step
and the hash of its bytes. Nothing in it is executed. What a training has to remember is the business of `training.py`;
where a run keeps its checkpoints is that of `store.py`.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from vae_ops.bundle import with_arrays, without_arrays
from vae_ops.errors import BundleError
from vae_ops.storage import Location

__all__ = ["Checkpoints", "load_checkpoint", "save_checkpoint"]

_FORMAT = 1
_SUFFIX = ".safetensors"
# Writing may take this share of the time; where the store is slow, checkpoints are further apart.
_SHARE_OF_TIME = 0.05


def save_checkpoint(directory: Location, identity: str, step: int, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint, then removes those before it.

    Args:
        directory: Created where missing; holds checkpoints of one training only.
        identity: Digest of all that decides the training.
        step: Optimiser steps done.
        state: JSON values and NumPy arrays.
    """
    arrays: dict[str, NDArray[Any]] = {}
    plain = {"format": _FORMAT, "identity": identity, "state": without_arrays(state, arrays, "state")}
    data = save_tensors(arrays, {"checkpoint": json.dumps(plain, sort_keys=True)})
    name = f"{step:09d}-{_digest(data)}{_SUFFIX}"
    directory.make_dirs()
    directory.child(name).write_atomic(data)
    for other in directory.list():
        if other != name:
            directory.child(other).remove()


def load_checkpoint(directory: Location, identity: str) -> dict[str, Any] | None:
    """The state of the newest checkpoint; None where there is none.

    Raises:
        BundleError: It is damaged, or belongs to another training.
    """
    names = [name for name in directory.list() if name.endswith(_SUFFIX) and not name.startswith(".")]
    if not names:
        return None
    child = directory.child(max(names))
    data = child.read_bytes()
    if child.name.removesuffix(_SUFFIX).partition("-")[2] != _digest(data):
        raise BundleError(f"The checkpoint {child.uri} is damaged: its hash is not the one in its name.")
    try:
        plain, arrays = json.loads(_metadata(data)["checkpoint"]), load_tensors(data)
        found, state = (plain["format"], plain["identity"]), with_arrays(plain["state"], arrays, "state")
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"The file {child.uri} is not a checkpoint of vae-ops.") from error
    if found != (_FORMAT, identity):
        raise BundleError(f"The checkpoint {child.uri} belongs to a training of other rows, settings or versions.")
    return dict(state)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _metadata(data: bytes) -> dict[str, str]:
    """What stands beside the tensors: after eight bytes of length, a safetensors file begins with a JSON header."""
    end = 8 + int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8:end])["__metadata__"])


class Checkpoints:
    """The checkpoints of one training; none are kept where there is no directory.

    Trouble with them never ends a training: `note` says what happened, for a person.

    Args:
        directory: Where they lie.
        identity: Digest of all that decides the training.

    Attributes:
        note: What a person should know: gone on from a step, or why not; empty where there is nothing to say.
    """

    def __init__(self, directory: Location | None, identity: str) -> None:
        self._directory = directory
        self._identity = identity
        self._next = 0.0
        self.note = ""

    def load(self) -> dict[str, Any] | None:
        """The state to go on from; None to begin from nothing."""
        if self._directory is None:
            return None
        try:
            return load_checkpoint(self._directory, self._identity)
        except (BundleError, OSError) as error:
            self.note = f"began anew: {error}"
        return None

    def save(self, step: int, state: Callable[[], Mapping[str, Any]]) -> None:
        """Writes a checkpoint, unless the last one was so recent that writing would slow training down."""
        if self._directory is None or time.monotonic() < self._next:
            return
        begin = time.monotonic()
        try:
            save_checkpoint(self._directory, self._identity, step, state())
        except OSError as error:
            self.note = f"no checkpoint could be kept: {error}"
        end = time.monotonic()
        self._next = end + (end - begin) / _SHARE_OF_TIME
