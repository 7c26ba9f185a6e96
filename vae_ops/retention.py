"""What may go from a store, and its removal: never anything that something points at.

`registry.py` moves versions; `store.py` knows every name, and removes what a dead process left of a run. What points at
a model version: of every line the champion and as many champions before it as are kept, runs, and the snapshots of
every output that the store feeds. Of a version's parents the lineage stays for as long as the version does.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vae_ops.errors import BusyError, SettingsError, VaeOpsError
from vae_ops.leases import hold
from vae_ops.registry import Registry
from vae_ops.storage import Location, locate
from vae_ops.store import CLI_PREFIX, Output, Run, Store, is_idle

__all__ = ["GcRecord", "gc"]

_MOVES_KEPT = 100


@dataclass(frozen=True)
class GcRecord:
    """What a collection found.

    Attributes:
        removed: What was removed, or with `dry_run` would be, as paths or URIs.
        kept: What points at each model version that stays.
        doubts: Why no model was removed, if it was unclear what points at them.
        dry_run: Whether nothing was removed.
    """

    removed: tuple[str, ...]
    kept: Mapping[str, str]
    doubts: tuple[str, ...]
    dry_run: bool


def gc(store: Store, *, keep: int, dry_run: bool = False, but: str = "") -> GcRecord:
    """Removes what nothing points at and nobody works on.

    That is: runs and things in the making whose process has died, old runs of a scheduler, snapshots cut short, model
    versions without use, and records of moves long past. Where it is unclear what points at the models, all stay.

    Args:
        store: The store; the outputs that it feeds are cleared of what dead processes left.
        keep: How many runs of a scheduler, and how many champions a line, stay though nothing else points at them.
        dry_run: Only look.
        but: A run that is left alone.

    Raises:
        SettingsError: `keep` is less than 1.
    """
    if keep < 1:
        raise SettingsError(f"The champion always stays, so keep must be at least 1; got {keep}.")
    collection = _Collection(store, keep, dry_run, but)
    collection.sweep()
    collection.remove_models()
    collection.remove_unfinished()
    return GcRecord(tuple(collection.removed), collection.kept, tuple(collection.doubts), dry_run)


class _Collection:
    """One round through a store."""

    def __init__(self, store: Store, keep: int, dry_run: bool, but: str) -> None:
        self.removed: list[str] = []
        self.kept: dict[str, str] = {}
        self.doubts: list[str] = []
        self._store = store
        self._keep = keep
        self._dry_run = dry_run
        self._but = but

    def _note(self, found: Iterable[Location]) -> None:
        self.removed += [location.uri for location in found]

    def _remove(self, found: Iterable[Location]) -> None:
        for location in found:
            self._note([location])
            if not self._dry_run:
                location.remove()

    # --- dead processes ------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Removes what dead processes left as wholes."""
        self._note(self._store.sweep(but=self._but, keep=self._keep, dry_run=self._dry_run))
        for output in self._outputs():
            self._note(output.sweep(dry_run=self._dry_run))
            self._note(output.remove_torn(dry_run=self._dry_run))
        for run in self._store.all_runs():
            self._tidy(run)

    def _tidy(self, run: Run) -> None:
        """Removes what dead steps left in a run of a scheduler that nobody will go on with.

        On a local disk that is files in the making; on an object store it is their leases, which go as the lock is
        taken.
        """
        if run.run_id.startswith(CLI_PREFIX) or run.run_id == self._but:
            return
        may_be_untidy = run.root.is_local or self._store.is_locked(run)
        if may_be_untidy and (run.published.exists() or is_idle(run)):
            with contextlib.suppress(BusyError), self._store.working_on(run.run_id, alone=True):
                self._remove(_hidden(run.root))

    def remove_unfinished(self) -> None:
        """Removes single files that were never given their name, and records of moves long past."""
        store = self._store
        for line in store.lines():
            self._remove(store.champion_record(number, line) for number in store.champion_numbers(line)[:-_MOVES_KEPT])
        lines = [store.champion_line(name) for name in store.champions.list() if name[0] != "."]
        versions = [store.model(name) for name in store.models.list() if name[0] != "."]
        places = [store.root, *lines, store.noted_outputs, *versions]
        for output in self._outputs():
            places += [output.root, output.snapshots]
        for staged in (place.child(name) for place in places if place.is_local for name in place.list()):
            if staged.name.startswith(".") and staged.name.endswith(".tmp"):
                self._remove_staged(staged)

    def _remove_staged(self, staged: Location) -> None:
        # Its writer holds a lock on the file itself, and whoever gives the lock back removes the file.
        if self._dry_run:
            self._note([staged])
            return
        with contextlib.suppress(BusyError), hold(staged):
            self._note([staged])

    # --- models --------------------------------------------------------------------------------------------------

    def remove_models(self) -> None:
        """Removes versions that nothing points at."""
        store = self._store
        if not store.models.list():
            return
        # A version is added under the same lock, by a run that has said before which one it uses. So none can come
        # into use between the look and the removal.
        with store.changing_models() as lease:
            self._look()
            parents = self._parents()
            if self.doubts:
                self.kept = dict.fromkeys(store.versions(), "unclear what points at it") | self.kept
                return
            for version in [name for name in store.models.list() if name not in self.kept]:
                lease.verify()
                self._remove_version(version, has_descendants=version in parents)

    def _remove_version(self, version: str, *, has_descendants: bool) -> None:
        if has_descendants and self._store.model(version).list() == [self._store.version(version).lineage.name]:
            return
        self._note([self._store.model(version)])
        if self._dry_run:
            return
        if has_descendants:
            self._store.thin_model(version)
        else:
            self._store.remove_model(version)

    def _look(self) -> None:
        """Finds what points at which version.

        A version goes from run to snapshot to champion, so looking in the same order misses none on its way.
        """
        for run in self._store.all_runs():
            if run.root.uri not in self.removed:
                with self._doubting(run.root.uri):
                    self._look_at_run(run)
        for output in self._outputs():
            with self._doubting(output.root.uri):
                self._look_at_output(output)
        with self._doubting(self._store.champions.uri):
            found = [Registry(self._store, line).last_move() for line in self._store.lines()]
            moves = [move for move in found if move is not None]
            for move in moves:
                self.kept |= dict.fromkeys(move.history[-self._keep :], "an earlier champion")
            # One line's earlier champion may be another's champion.
            self.kept |= {move.version: "champion" for move in moves}

    def _look_at_run(self, run: Run) -> None:
        if run.trained.exists():
            self.kept.setdefault(run.trained.read_json()["model_version"], f"run {run.run_id}")
        elif not is_idle(run) or self._is_at_work(run):
            self.doubts.append(f"Run {run.run_id} has not said yet which model it uses.")

    def _is_at_work(self, run: Run) -> bool:
        try:
            with self._store.working_on(run.run_id, alone=True):
                return False
        except BusyError:
            return True

    def _look_at_output(self, output: Output) -> None:
        if not output.snapshots.exists() and output.default_store.uri != self._store.root.uri:
            self.doubts.append(f"Nothing can be seen at {output.root.uri}; if it is gone for good, --forget it.")
        for name in output.snapshots.list():
            manifest = output.manifest(output.snapshot(name))
            if name[0] != "." and manifest.exists():
                self.kept.setdefault(manifest.read_json()["model_version"], f"snapshot {name}")

    def _parents(self) -> set[str]:
        """All that the kept versions descend from."""
        parents: set[str] = set()
        for version in self.kept:
            with self._doubting(self._store.model(version).uri):
                parents |= {link.version for link in Registry(self._store).lineage_of(version)}
        return parents

    def _outputs(self) -> list[Output]:
        """Outputs that can be looked into; one that another connection opens may point at any model."""
        found: list[Output] = []
        for uri in self._store.output_uris():
            with self._doubting(uri):
                found.append(Output(locate(uri)))
        return found

    @contextlib.contextmanager
    def _doubting(self, uri: str) -> Iterator[None]:
        """What cannot be read may point anywhere."""
        try:
            yield
        except (VaeOpsError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            doubt = f"{uri} cannot be read ({error})."
            self.doubts += [doubt] if doubt not in self.doubts else []


def _hidden(directory: Location) -> Iterator[Location]:
    for child in map(directory.child, directory.list()):
        if child.name.startswith("."):
            yield child
        elif child.is_dir():
            yield from _hidden(child)
