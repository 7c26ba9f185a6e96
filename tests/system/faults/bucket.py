"""A bucket as the place of a night: walks reach it through the proxy, the harness goes straight to the server."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.object_store import ObjectStore
from tests.system.faults.places import EMPTY, night_parts
from tests.system.faults.promises import names_below
from tests.system.faults.proxy import Proxy
from vae_ops.storage import Location

__all__ = ["LEASE_SECONDS", "Bucket"]

# Whoever comes after a kill waits for so long before it takes the dead holder's place.
LEASE_SECONDS = 3.0


class Bucket:
    """Source, output and store in one bucket.

    Args:
        objects: An empty bucket that `s3://` reaches from this process.
        proxy: In front of its server.
        temporary: An empty directory for the temporary files of the walks.
    """

    def __init__(self, objects: ObjectStore, proxy: Proxy, temporary: Path) -> None:
        self.source, self.output, self.store = (objects.uri(name) for name in ("source", "out", "store"))
        self.proxy = proxy
        self.environment: Mapping[str, str] = {
            **objects.environment,
            "AWS_ENDPOINT_URL": proxy.endpoint,
            "VAE_OPS_LEASE_SECONDS": str(LEASE_SECONDS),
            "TMPDIR": str(temporary),
        }
        self._objects = objects
        self._temporary = temporary
        self._states: dict[str, dict[str, bytes]] = {EMPTY: {}}

    @property
    def _kept(self) -> tuple[Location, Location]:
        return self._objects.location("out"), self._objects.location("store")

    def bring_source(self, night: int) -> None:
        """Puts a night's table where the walk looks for it, and nothing else."""
        self._write_source("source", night)

    def other_source(self, night: int) -> str:
        """A night's table elsewhere."""
        name = f"source-{night}"
        self._write_source(name, night)
        return self._objects.uri(name)

    def _write_source(self, name: str, night: int) -> None:
        for number, part in enumerate(night_parts(night)):
            sink = pa.BufferOutputStream()
            pq.write_table(part, sink)
            self._objects.location(name, f"part-{number}.parquet").write_atomic(sink.getvalue().to_pybytes())

    def save(self, state: str) -> None:
        """Remembers what lies in output and store."""
        root = self._objects.location()
        self._states[state] = {name: root.child(name).read_bytes() for name in self.names()}

    def restore(self, state: str) -> None:
        """Brings that back, and removes all else."""
        shutil.rmtree(self._temporary)
        self._temporary.mkdir()
        for place in self._kept:
            place.remove()
        root = self._objects.location()
        if self._states[state]:
            root.fs.pipe({root.child(name).path: data for name, data in self._states[state].items()})

    def names(self) -> set[str]:
        """Every name in output and store."""
        return {f"{place.name}/{name}" for place in self._kept for name in names_below(place)}

    def outside(self) -> set[str]:
        """Names of temporary files that were left elsewhere."""
        return set(os.listdir(self._temporary))
