"""Every name on disk, and the moves between them: runs, models, champions, snapshots, `_latest.json`.

A rename is one edit here and nowhere else. What the files hold is decided by `steps.py`, `registry.py` and
`publishing.py`; how bytes get to a URI by `storage.py`, how whole directories move by `trees.py`.

    STORE/runs/RUN_ID/         profile.json  training.arrow  holdout.arrow  candidate/  checkpoint/  decision.json
                               lineage.json  reference.json  utility.json  train.json  parts/  verdict.json
                               report.json  report.html  publish.json  state.json
    STORE/models/VERSION/      a bundle, and beside it lineage.json  profile.json  rehearsal.arrow; of versions that
                               are gone and have descendants only lineage.json
    STORE/champions/LINE/      N.json, one record a move of the crown; the highest number is in force
    STORE/outputs/DIGEST.json  the outputs that this store feeds, but for the one it lies in
    STORE/rejected/RUN_ID/     candidate and verdict of runs that the gate refused
    OUTPUT/_latest.json        the one pointer that readers follow
    OUTPUT/snapshots/ID/       source-*.parquet  synthetic-*.parquet  _manifest.json  _report.json  _report.html

Every output has its own line of champions, so that tables that share a store do not replace each other's models. LINE
is `own` for the output that the store lies in, so that both may be moved together, and DIGEST for any other.

Names that start with a dot are in the making, or locks (`leases.py`): no reader looks at them, and each is removed once
its owner has died. An object store has no rename, so there the file that makes a directory whole is written last and
removed first.
"""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vae_ops.errors import BusyError, InputError, SettingsError, UsageError, VaeOpsError
from vae_ops.leases import Lease, hold
from vae_ops.storage import Location, locate
from vae_ops.trees import GONE, MAKING, copy_tree, discard, move_tree

__all__ = ["CLI_PREFIX", "OWN_LINE", "Output", "Run", "Store", "Version", "is_idle", "leaving_no_trace"]

CLI_PREFIX = "cli-"
OWN_LINE = "own"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,199}")
_SNAPSHOT_ID = re.compile(r"[0-9a-f]{32}")
_CHAMPION = re.compile(r"([0-9]{8,})\.json")
_LINE = re.compile(rf"{OWN_LINE}|[0-9a-f]{{16}}")
_REJECTED_KEPT = 3
_IDLE_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Run:
    """The artifacts of one run, by name."""

    root: Location
    run_id: str

    @property
    def profile(self) -> Location:
        """What the profile step found."""
        return self.root.child("profile.json")

    @property
    def training(self) -> Location:
        """Rows the model was trained on, as Arrow IPC: unlike Parquet it keeps every Arrow type."""
        return self.root.child("training.arrow")

    @property
    def holdout(self) -> Location:
        """Rows that training never saw, as Arrow IPC."""
        return self.root.child("holdout.arrow")

    @property
    def candidate(self) -> Location:
        """Bundle of the model under trial."""
        return self.root.child("candidate")

    @property
    def checkpoint(self) -> Location:
        """How far training has come, for a try after a kill."""
        return self.root.child("checkpoint")

    @property
    def decision(self) -> Location:
        """Which model draws the rows, and why that one."""
        return self.root.child("decision.json")

    @property
    def lineage(self) -> Location:
        """Where the candidate comes from; only of a model that was trained in this run."""
        return self.root.child("lineage.json")

    @property
    def reference(self) -> Location:
        """Profile of all that the candidate and its line have learned; only of a model trained in this run."""
        return self.root.child("reference.json")

    @property
    def utility(self) -> Location:
        """What synthetic rows are worth for learning a target, and the dose that follows; only with a target."""
        return self.root.child("utility.json")

    @property
    def trained(self) -> Location:
        """Record of the train step; its presence says that the artifacts above are whole."""
        return self.root.child("train.json")

    @property
    def parts(self) -> Location:
        """Directory of synthetic parts, in exactly the source's schema."""
        return self.root.child("parts")

    def part(self, shard: int, shards: int) -> Location:
        """One synthetic part."""
        return self.parts.child(f"part-{shard:05d}-of-{shards:05d}.parquet")

    @property
    def verdict(self) -> Location:
        """What the gate said, and of which parts."""
        return self.root.child("verdict.json")

    @property
    def report(self) -> Location:
        """Everything the gate measured, for a person."""
        return self.root.child("report.json")

    @property
    def page(self) -> Location:
        """The same for people."""
        return self.root.child("report.html")

    @property
    def published(self) -> Location:
        """Record of the publish step."""
        return self.root.child("publish.json")

    @property
    def state(self) -> Location:
        """Last step that touched the run, and when."""
        return self.root.child("state.json")

    def touch(self, step: str) -> None:
        """Notes that `step` begins, and makes the run's directory."""
        self.root.make_dirs()
        self.state.write_json({"step": step, "updated_at": time.time()})

    def drop_bulk(self) -> None:
        """Removes the large artifacts of a published run; its records and its promoted model stay."""
        for location in (self.parts, self.training, self.holdout, self.candidate, self.checkpoint):
            location.remove()


@dataclass(frozen=True)
class Version:
    """The files of a model version: its bundle, and what lies beside that in the same directory."""

    bundle: Location

    @property
    def manifest(self) -> Location:
        """Written last: a bundle without it is none."""
        return self.bundle.child("manifest.json")

    @property
    def lineage(self) -> Location:
        """Where the version comes from."""
        return self.bundle.child("lineage.json")

    @property
    def profile(self) -> Location:
        """Profile of what it learned: the reference for drift."""
        return self.bundle.child("profile.json")

    @property
    def rehearsal(self) -> Location:
        """Real rows to be rehearsed when it is refreshed, as Arrow IPC."""
        return self.bundle.child("rehearsal.arrow")


@dataclass(frozen=True)
class Store:
    """Names below the store: runs, promoted models, the champions and what the gate refused."""

    root: Location

    def run(self, run_id: str) -> Run:
        """The run of that name.

        Raises:
            SettingsError: The name could leave its directory or hide from a listing.
        """
        if not _RUN_ID.fullmatch(run_id):
            expected = "letters, digits, '.', '_', '~' and '-', at most 200, beginning with a letter or digit"
            raise SettingsError(f"A run id consists of {expected}; got {run_id!r}.")
        return Run(self.runs.child(run_id), run_id)

    @property
    def runs(self) -> Location:
        """Directory of all runs."""
        return self.root.child("runs")

    def all_runs(self) -> list[Run]:
        """Every run that something is left of, by name."""
        names = {_run_of(name) for name in self.runs.list()}
        return [self.run(name) for name in sorted(names) if _RUN_ID.fullmatch(name)]

    @contextlib.contextmanager
    def working_on(self, run_id: str, *, alone: bool) -> Iterator[Run]:
        """Marks a run as alive; with `alone`, refuses to share it.

        Raises:
            BusyError: Another process is at work on the run and one of the two wants it alone.
        """
        run = self.run(run_id)
        self.runs.make_dirs()
        with hold(self._run_lock(run_id), shared=not alone):
            yield run

    def is_locked(self, run: Run) -> bool:
        """Whether anybody, dead or alive, holds a lock on the run."""
        return self._run_lock(run.run_id).exists()

    def _run_lock(self, run_id: str) -> Location:
        return self.runs.child(f".{run_id}.lock")

    @property
    def models(self) -> Location:
        """Directory of all model versions."""
        return self.root.child("models")

    def version(self, version: str) -> "Version":
        """The files of a model version."""
        return Version(self.models.child(version))

    def model(self, version: str) -> Location:
        """Bundle of a model version."""
        return self.version(version).bundle

    def versions(self) -> list[str]:
        """All versions with a whole bundle."""
        return [name for name in self.models.list() if name[0] != "." and self.has_model(name)]

    def has_model(self, version: str) -> bool:
        """Whether the bundle of a version is there, whole."""
        return self.version(version).manifest.exists()

    @contextlib.contextmanager
    def adding_model(self, run: Run, version: str) -> Iterator["Version"]:
        """Copies a run's candidate among the versions; the block writes what lies beside a bundle.

        A version that is there already keeps its bundle.

        Raises:
            UsageError: The run has no candidate.
        """
        with self.changing_models() as lease:
            if self.has_model(version):
                yield self.version(version)
                return
            if not run.candidate.exists():
                raise UsageError(f"Run {run.run_id!r} has no candidate any more: run its train step again.")
            making = Version(self.models.child(MAKING + version))
            copy_tree(run.candidate, making.bundle)
            yield making
            lease.verify()
            self.model(version).remove()
            move_tree(making.bundle, self.model(version), last=making.manifest.name)

    @contextlib.contextmanager
    def changing_models(self) -> Iterator[Lease]:
        """One at a time: adding and removing versions."""
        self.models.make_dirs()
        with hold(self.root.child(".models.lock"), wait=True) as lease:
            _remove_hidden(self.models)
            yield lease

    def remove_model(self, version: str) -> None:
        """Removes a version; the caller is changing models."""
        discard(self.models, version, first=self.version(version).manifest.name)

    def thin_model(self, version: str) -> None:
        """Removes all of a version but its lineage; the caller is changing models."""
        files = self.version(version)
        files.manifest.remove()
        for name in files.bundle.list():
            if name != files.lineage.name:
                files.bundle.child(name).remove()

    @property
    def champions(self) -> Location:
        """Directory of the lines of champions, one for each output that has had a champion."""
        return self.root.child("champions")

    def line_of(self, output: "Output | None") -> str:
        """Name of an output's line of champions; walks without an output share the line of the store's own output."""
        if output is None or output.default_store.uri == self.root.uri:
            return OWN_LINE
        return _digest(output.root.uri)

    def lines(self) -> list[str]:
        """All lines that have had a champion."""
        return [line for line in self.champions.list() if _LINE.fullmatch(line) and self.champion_numbers(line)]

    def fed_by(self, line: str) -> str:
        """URI of the output that a line belongs to; where the store knows none, the name of the line."""
        return next((output.root.uri for output in self.outputs() if self.line_of(output) == line), line)

    def champion_line(self, line: str = OWN_LINE) -> Location:
        """Directory of the records that say which version is the line's champion, one a move."""
        return self.champions.child(line)

    def champion_record(self, number: int, line: str = OWN_LINE) -> Location:
        """The record of one move."""
        return self.champion_line(line).child(f"{number:08d}.json")

    def champion_numbers(self, line: str = OWN_LINE) -> list[int]:
        """Numbers of all records of a line, ascending."""
        names = (_CHAMPION.fullmatch(name) for name in self.champion_line(line).list())
        return sorted(int(found[1]) for found in names if found)

    @property
    def noted_outputs(self) -> Location:
        """Directory of the notes of outputs that this store feeds."""
        return self.root.child("outputs")

    def remember(self, output: "Output") -> None:
        """Notes an output that this store feeds, so that the models behind its snapshots are found.

        The output that a store lies in needs no note, and may be moved with it.
        """
        note = self._note(output.root.uri)
        if output.default_store.uri != self.root.uri and not note.exists():
            note.parent.make_dirs()
            note.write_json({"output": output.root.uri})

    def forget(self, uri: str) -> None:
        """Removes the note of an output, and its line of champions."""
        output = locate(uri).uri
        # The note goes last: as long as it is there, a kill leaves nothing that cannot be forgotten again.
        self.champion_line(_digest(output)).remove()
        self._note(output).remove()

    def outputs(self) -> list["Output"]:
        """All outputs that this store feeds.

        Raises:
            UsageError: One of them cannot be reached from this process.
        """
        return [Output(locate(uri)) for uri in self.output_uris()]

    def output_uris(self) -> list[str]:
        """URIs of all outputs that this store feeds, reachable or not."""
        home = Output(self.root.parent)
        notes = [self.noted_outputs.child(name) for name in self.noted_outputs.list() if name[0] != "."]
        noted = [str(note.read_json()["output"]) for note in notes]
        return [*([home.root.uri] if home.default_store.uri == self.root.uri else []), *noted]

    def _note(self, uri: str) -> Location:
        return self.noted_outputs.child(f"{_digest(uri)}.json")

    @property
    def rejected(self) -> Location:
        """Directory of what the gate refused."""
        return self.root.child("rejected")

    def reject(self, run: Run) -> Location:
        """Moves what is needed to understand a refusal out of the run; only the newest few refusals are kept."""
        rejected = self.rejected
        rejected.make_dirs()
        for bulk in (run.parts, run.training, run.holdout):
            bulk.remove()
        with hold(self.root.child(".rejected.lock"), wait=True):
            discard(rejected, run.run_id, first=run.verdict.name)
            move_tree(run.root, rejected.child(run.run_id), last=run.verdict.name)
            _keep_newest(rejected, _REJECTED_KEPT)
        return rejected.child(run.run_id)

    def remove_run(self, run: Run) -> None:
        """Removes a run with all its artifacts, so that it vanishes whole; the caller holds its lock."""
        discard(self.runs, run.run_id, first=run.trained.name)

    def sweep(self, *, but: str = "", keep: int = 7, dry_run: bool = False) -> list[Location]:
        """Removes what dead processes left: other command-line runs, and old runs that nobody has touched for a day.

        Args:
            but: Run that the caller is about to work on.
            keep: The newest runs of a scheduler that stay however old they are.
            dry_run: Only look.

        Returns:
            The runs that were removed, or would be.
        """
        runs = [run for run in self.all_runs() if run.run_id != but]
        scheduled = sorted((run for run in runs if not run.run_id.startswith(CLI_PREFIX)), key=_last_touch)
        left = [run for run in runs if run.run_id.startswith(CLI_PREFIX)]
        left += [run for run in scheduled[:-keep] if is_idle(run)]
        return [run.root for run in left if self._remove_if_dead(run, dry_run)]

    def _remove_if_dead(self, run: Run, dry_run: bool) -> bool:
        with contextlib.suppress(BusyError), self.working_on(run.run_id, alone=True):
            there = run.root.exists()
            if not dry_run:
                self.remove_run(run)
            return there
        return False


def _digest(uri: str) -> str:
    return hashlib.blake2b(uri.encode(), digest_size=8).hexdigest()


def is_idle(run: Run) -> bool:
    """Whether no step has begun for a day."""
    return time.time() - _last_touch(run) > _IDLE_SECONDS


def _run_of(name: str) -> str:
    """Run that an entry of `runs/` belongs to: its directory, its lock file, or what a kill left of its removal."""
    if name.startswith(MAKING):
        return name.removeprefix(MAKING).removesuffix(GONE)
    return name[1:].removesuffix(".lock") if name.startswith(".") else name


def _last_touch(run: Run) -> float:
    if not run.state.exists():
        return 0.0
    return float(run.state.read_json()["updated_at"])


def _remove_hidden(directory: Location) -> None:
    for name in directory.list():
        if name.startswith(MAKING):
            directory.child(name).remove()


def _keep_newest(directory: Location, kept: int) -> None:
    names = [name for name in directory.list() if not name.startswith(".")]
    names.sort(key=lambda name: (_last_touch(Run(directory.child(name), name)), name))
    for name in names[:-kept]:
        discard(directory, name, first="verdict.json")
    _remove_hidden(directory)


@dataclass(frozen=True)
class Output:
    """Names below the output: immutable snapshots and the pointer to the newest."""

    root: Location

    @property
    def default_store(self) -> Location:
        """Store of a run that names none: the underscore hides it from Parquet readers of the output."""
        return self.root.child("_store")

    @property
    def latest(self) -> Location:
        """The pointer; it always names a whole, validated snapshot."""
        return self.root.child("_latest.json")

    @property
    def snapshots(self) -> Location:
        """Directory of all snapshots."""
        return self.root.child("snapshots")

    def snapshot(self, snapshot_id: str) -> Location:
        """Final name of a snapshot."""
        return self.snapshots.child(snapshot_id)

    @staticmethod
    def manifest(snapshot: Location) -> Location:
        """The file whose presence says that a snapshot is whole."""
        return snapshot.child("_manifest.json")

    @staticmethod
    def report(snapshot: Location) -> Location:
        """What the gate measured before this snapshot was let through."""
        return snapshot.child("_report.json")

    @staticmethod
    def page(snapshot: Location) -> Location:
        """The same for people."""
        return snapshot.child("_report.html")

    @contextlib.contextmanager
    def staging(self, run_id: str) -> Iterator[Location]:
        """An empty directory that no reader looks at, gone afterwards unless it was renamed.

        Raises:
            BusyError: Another process is publishing the very same run.
        """
        self.snapshots.make_dirs()
        making = self.snapshots.child(MAKING + run_id)
        with hold(self.snapshots.child(f"{MAKING}{run_id}.lock")):
            making.remove()
            making.make_dirs()
            try:
                yield making
            finally:
                making.remove()

    @contextlib.contextmanager
    def committing(self) -> Iterator[Lease]:
        """One at a time: naming a snapshot, repointing `_latest.json`, and removing old snapshots."""
        self.snapshots.make_dirs()
        with hold(self.snapshots.child(".commit.lock"), wait=True) as lease:
            yield lease

    def sweep(self, *, dry_run: bool = False) -> list[Location]:
        """Removes staging directories whose process has died, and returns them; `dry_run` only looks."""
        names = {name.removesuffix(".lock") for name in self.snapshots.list() if name.startswith(MAKING)}
        staged = [self.snapshots.child(name) for name in sorted(names)]
        return [making for making in staged if self._remove_if_dead(making, dry_run)]

    def _remove_if_dead(self, making: Location, dry_run: bool) -> bool:
        with contextlib.suppress(BusyError), hold(self.snapshots.child(f"{making.name}.lock")):
            there = making.exists()
            if not dry_run:
                making.remove()
            return there
        return False

    def remove_torn(self, *, dry_run: bool = False) -> list[Location]:
        """Removes snapshots without manifest: what a kill leaves of a copy or a removal on an object store."""
        names = [name for name in self.snapshots.list() if _SNAPSHOT_ID.fullmatch(name)]
        if all(self.manifest(self.snapshot(name)).exists() for name in names):
            return []
        with self.committing():
            torn = [self.snapshot(name) for name in names if not self.manifest(self.snapshot(name)).exists()]
            for snapshot in () if dry_run else torn:
                snapshot.remove()
        return torn

    def keep_newest(self, kept: int, *, order: dict[str, str], named: str) -> None:
        """Removes all snapshots but the one that `_latest.json` names and the newest of the others.

        Args:
            kept: How many stay, the named one among them, whatever time a clock that was set back has given it.
            order: Time of publishing by snapshot id, as sortable text.
            named: Snapshot id in `_latest.json`.
        """
        others = sorted(set(order) - {named}, key=lambda snapshot_id: order[snapshot_id], reverse=True)
        for snapshot_id in others[kept - 1 :]:
            discard(self.snapshots, snapshot_id, first=self.manifest(self.snapshot(snapshot_id)).name)


@contextlib.contextmanager
def leaving_no_trace(output: Output, store: Store) -> Iterator[None]:
    """Removes the directories that the block has made, if it ends in refusing the input."""
    homes = (output.snapshots, store.runs, store.models)
    made = [path for path in _lineage(homes) if not os.path.exists(path)]
    try:
        yield
    except VaeOpsError as error:
        if error.exit_code == InputError.exit_code:
            for path in made:
                with contextlib.suppress(OSError):
                    os.rmdir(path)
        raise


def _lineage(locations: Iterable[Location]) -> list[str]:
    """The local directories and all their ancestors, deepest first."""
    paths = [Path(location.path) for location in locations if location.is_local]
    return sorted({str(ancestor) for path in paths for ancestor in (path, *path.parents)}, key=len, reverse=True)
