"""A saved model on disk: a directory of JSON and tensors, hashed, and nothing in it that could be executed.

A bundle is `model.json` (a tree of plain values), `weights.safetensors` (the arrays of that tree) and `manifest.json`
(format, version, size and hash of the two). What the tree means is the business of `vae.py`; which directory a model
lies in, and what lies beside it there, that of `store.py`. The layout and how long it stays readable are written down
in `docs/bundle-format.md`.
"""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from vae_ops.errors import BundleError
from vae_ops.storage import Location, locate

__all__ = ["BUNDLE_FORMAT", "OLDEST_FORMAT", "Bundle", "with_arrays", "without_arrays"]

BUNDLE_FORMAT = 2
# Format 1 was written before the promise of docs/bundle-format.md was made.
OLDEST_FORMAT = 2
_MODEL, _WEIGHTS, _MANIFEST = "model.json", "weights.safetensors", "manifest.json"
_CONTENT = (_MODEL, _WEIGHTS)
# Files that other tools execute when they open them: where one lies beside a model, somebody means harm or errs.
_EXECUTABLE = frozenset(
    {".dill", ".h5", ".hdf5", ".joblib", ".keras", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}
)
_REMEDY = "restore the model or train anew"


@dataclass(frozen=True)
class Bundle:
    """The content of a saved model.

    Attributes:
        model: The bytes of `model.json`.
        weights: The bytes of `weights.safetensors`.
    """

    model: bytes
    weights: bytes

    @classmethod
    def pack(cls, tree: Mapping[str, Any]) -> Self:
        """Makes the files of a tree; equal trees give equal bytes.

        Args:
            tree: JSON values, with NumPy arrays wherever they belong.

        Raises:
            BundleError: A number is not finite, as after a training that diverged.
        """
        arrays: dict[str, NDArray[Any]] = {}
        plain = {"format": BUNDLE_FORMAT, **without_arrays(tree, arrays)}
        try:
            text = json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False)
        except ValueError as error:
            raise BundleError(
                f"A model with numbers that are not finite cannot be saved ({error}); train anew."
            ) from error
        return cls(text.encode("ascii"), save_tensors(arrays))

    def unpack(self) -> dict[str, Any]:
        """The tree that was packed.

        Raises:
            BundleError: The files are not JSON and tensors, or one names arrays that the other lacks.
        """
        try:
            plain, arrays = json.loads(self.model, parse_constant=_refuse_constant), load_tensors(self.weights)
            tree = with_arrays(plain, arrays)
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OverflowError, MemoryError) as error:
            raise BundleError(f"The content of a model is not JSON and tensors ({error}); {_REMEDY}.") from error
        if not isinstance(tree, dict) or arrays:
            raise BundleError(f"The content of a model is not one object with all its arrays; {_REMEDY}.")
        return tree

    @property
    def version(self) -> str:
        """Digest of the content: equal for equal models."""
        return hashlib.blake2b(self.model + self.weights, digest_size=16).hexdigest()

    def write(self, directory: str | os.PathLike[str]) -> None:
        """Writes the bundle, staged and then renamed; a model that is there already is replaced.

        Args:
            directory: Path or URI.
        """
        files = {_MODEL: self.model, _WEIGHTS: self.weights, _MANIFEST: self._manifest()}
        location = locate(directory)
        if location.is_local:
            _replace_directory(Path(location.path), files)
            return
        # The manifest comes last: a bundle without one is not a bundle.
        for name, data in files.items():
            location.child(name).write_atomic(data)

    def _manifest(self) -> bytes:
        files = {name: _facts_of(data) for name, data in zip(_CONTENT, (self.model, self.weights), strict=True)}
        manifest = {"format": BUNDLE_FORMAT, "version": self.version, "files": files}
        return json.dumps(manifest, indent=1, sort_keys=True).encode("ascii")

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> Self:
        """Reads a bundle and checks it against its manifest; nothing in it is executed.

        Args:
            directory: Path or URI.

        Raises:
            BundleError: Missing, incomplete, altered, of a newer format or of one older than the promise, naming files
                outside the directory, or carrying a file that some tool would execute.
        """
        location = locate(directory)
        manifest = _read_manifest(location)
        _refuse_executables(location)
        bundle = cls(*(_read_checked(location.child(name), manifest["files"][name]) for name in _CONTENT))
        if manifest["version"] != bundle.version:
            raise BundleError(
                f"{location.child(_MANIFEST).uri} names another version than that of the content beside it; {_REMEDY}."
            )
        return bundle


def _facts_of(data: bytes) -> dict[str, int | str]:
    return {"bytes": len(data), "blake2b": hashlib.blake2b(data, digest_size=32).hexdigest()}


def _replace_directory(target: Path, files: Mapping[str, bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # One fixed name: what a killed process leaves behind is taken over by the next.
    staged = target.with_name(f".{target.name}.staging")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        for name, data in files.items():
            (staged / name).write_bytes(data)
        shutil.rmtree(target, ignore_errors=True)
        staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _read_manifest(location: Location) -> dict[str, Any]:
    child = location.child(_MANIFEST)
    data = _read_inside(child)
    if data is None:
        raise BundleError(
            f"{location.uri} holds no model of vae-ops ({_MANIFEST} is missing); give a model's directory."
        )
    try:
        manifest = json.loads(data)
        written = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{child.uri} is not the manifest of a model; {_REMEDY}.") from error
    _check_format(location, written)
    names = manifest.get("files")
    if not isinstance(names, dict) or set(names) != set(_CONTENT) or not isinstance(manifest.get("version"), str):
        raise BundleError(f"{child.uri} must name the files {' and '.join(_CONTENT)} and no other; {_REMEDY}.")
    return dict(manifest)


def _check_format(location: Location, written: Any) -> None:
    if not isinstance(written, int) or isinstance(written, bool):
        raise BundleError(f"The model in {location.uri} names no format ({written!r}); {_REMEDY}.")
    if written > BUNDLE_FORMAT:
        raise BundleError(
            f"The model in {location.uri} has format {written}, newer than the {BUNDLE_FORMAT} that this version of "
            "vae-ops reads; upgrade vae-ops."
        )
    if written < OLDEST_FORMAT:
        raise BundleError(
            f"The model in {location.uri} has format {written}, older than {OLDEST_FORMAT}, the first that vae-ops "
            "promises to read; train anew."
        )


def _refuse_executables(location: Location) -> None:
    for name in location.list():
        if PurePosixPath(name).suffix.lower() in _EXECUTABLE:
            raise BundleError(
                f"{location.child(name).uri} lies in a model but is none of its files, and opening such a file can "
                "execute code; remove it, or restore the model."
            )


def _read_checked(child: Location, facts: Any) -> bytes:
    data = _read_inside(child, facts.get("bytes") if isinstance(facts, dict) else None)
    if data is None or _facts_of(data) != facts:
        raise BundleError(f"{child.uri} is not what was saved (its size or hash is not the manifest's); {_REMEDY}.")
    return data


def _read_inside(child: Location, size: int | None = None) -> bytes | None:
    """The bytes of a regular file of the directory; None where there is none, or not one of the expected size."""
    try:
        if child.is_local:
            _check_inside(child)
        if not child.exists() or (size is not None and child.size() != size):
            return None
        return child.read_bytes()
    # fsspec packages raise their own trees, which share no base below Exception.
    except Exception as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{child.uri} cannot be read ({error}); {_REMEDY}.") from error


def _check_inside(child: Location) -> None:
    path = Path(child.path)
    if not path.exists():
        return
    if not path.resolve().is_relative_to(path.parent.resolve()) or not stat.S_ISREG(path.stat().st_mode):
        raise BundleError(f"{child.uri} is not a file of its own directory; copy the model as plain files.")


def without_arrays(value: Any, arrays: dict[str, NDArray[Any]], path: str = "") -> Any:
    """A tree as plain JSON values.

    Args:
        value: JSON values, and NumPy arrays among them.
        arrays: Takes up every array under its path in the tree; a note of the path stays in its place.
        path: Where in the whole tree the value stands.
    """
    if isinstance(value, np.ndarray):
        arrays[path] = np.asarray(value, order="C")
        return {"array": path}
    if isinstance(value, Mapping):
        return {key: without_arrays(one, arrays, _below(path, key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_arrays(one, arrays, _below(path, index)) for index, one in enumerate(value)]
    return value


def with_arrays(value: Any, arrays: dict[str, NDArray[Any]], path: str = "") -> Any:
    """The inverse of `without_arrays`: takes every array that finds its place out of `arrays`.

    Raises:
        KeyError: The tree names an array that is not there.
    """
    if isinstance(value, dict):
        # The path, not the key alone, marks an array: a column may be called "array".
        if value == {"array": path}:
            return arrays.pop(path)
        return {key: with_arrays(one, arrays, _below(path, key)) for key, one in value.items()}
    if isinstance(value, list):
        return [with_arrays(one, arrays, _below(path, index)) for index, one in enumerate(value)]
    return value


def _below(path: str, name: object) -> str:
    return f"{path}/{name}" if path else str(name)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")
