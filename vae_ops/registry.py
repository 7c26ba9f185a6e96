"""Model versions: where each comes from, which one is champion of an output, and every move of the crown.

A version is a bundle and, beside it, its lineage, the profile of what it learned (the reference for drift) and a
rehearsal of real rows. Which version a night uses or makes is decided by `decision.py`, what may be removed by
`retention.py`; file names come from `store.py`.

Versions belong to the whole store, crowns to lines: one line for each output, so that two tables on one store do not
replace each other's champion night by night. The crown of a line moves by numbered records in `champions/LINE/`, and
the highest number is in force. A record is only ever created, never replaced: of two writers who read the same record,
one creates the next number and the other learns that it was second. That holds on every disk and object store, needs no
clock, and lets no writer that was asleep meanwhile undo what others did.
"""

import dataclasses
import io
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypeVar

import pyarrow as pa

from vae_ops.errors import BundleError, UsageError
from vae_ops.profiling import Profile
from vae_ops.storage import Location
from vae_ops.store import OWN_LINE, Run, Store

__all__ = ["Champion", "Failure", "Lineage", "Move", "Registry"]

_Record = TypeVar("_Record")
_WITHDRAWN_KEPT = 100


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a model version comes from.

    Attributes:
        version: The version.
        parent: Version whose weights were continued; None if it was trained from nothing.
        decision: How it was made.
        reason: Why, in one sentence.
        run_id: Run that made it.
        source: URI of the table.
        source_fingerprint: Digest of the table's content.
        code_version: Version of vae-ops.
        settings_digest: Digest of the settings that decide the weights.
        created_at: When it was made, ISO 8601 in UTC.
        trained_at: When the chain began, that is, when a model was last trained from nothing, ISO 8601 in UTC.
        refreshes: Refreshes since then.
        rows: Rows that were learned from.
        scores: What the gate measured, by metric.
        watermark: Digest of each source file that the chain has learned from, by name relative to the source.
    """

    version: str
    parent: str | None
    decision: Literal["refresh", "retrain"]
    reason: str
    run_id: str
    source: str
    source_fingerprint: str
    code_version: str
    settings_digest: str
    created_at: str
    trained_at: str
    refreshes: int = 0
    rows: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    watermark: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the record from plain JSON values; what a later version of vae-ops added is left out."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True)
class Failure:
    """A challenger that did not become champion.

    Attributes:
        decision: How it was made.
        reason: Why it lost, in one sentence.
        run_id: Run that made it.
        version: Its version; empty if it never became a model.
        at: When, ISO 8601 in UTC.
    """

    decision: Literal["refresh", "retrain"]
    reason: str
    run_id: str
    version: str
    at: str


@dataclass(frozen=True)
class Move:
    """One record of a line of `champions/`: the champion that is in force from now on, and how that came about.

    Attributes:
        number: Its place in the order of moves, from 1.
        kind: A challenger was promoted, one failed and the champion stayed, or a person rolled back.
        version: Champion from now on.
        run_id: Run that made it champion.
        at: When, ISO 8601 in UTC.
        history: Champions so far without those rolled back, the newest last; the champion itself is the last.
        withdrawn: Versions that were rolled back: no run promotes them again, but a person may.
        failure: The last challenger, if it failed.
    """

    number: int
    kind: Literal["promoted", "stayed", "rolled back"]
    version: str
    run_id: str
    at: str
    history: tuple[str, ...]
    withdrawn: tuple[str, ...] = ()
    failure: Failure | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the record from plain JSON values; what a later version of vae-ops added is left out."""
        known = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
        lists = {name: tuple(known.get(name, ())) for name in ("history", "withdrawn")}
        failure = known.get("failure")
        return cls(**{**known, **lists, "failure": failure and Failure(**failure)})


@dataclass(frozen=True)
class Champion:
    """The model in force for an output.

    Attributes:
        version: Its version.
        run_id: Run that made it champion.
        lineage: Where it comes from.
        history: Champions so far without those rolled back, the newest last.
        failure: The last challenger, if it failed.
    """

    version: str
    run_id: str
    lineage: Lineage
    history: tuple[str, ...]
    failure: Failure | None = None

    @property
    def failed(self) -> Literal["refresh", "retrain"] | None:
        """How the last challenger was made, if it failed."""
        return self.failure.decision if self.failure else None


class Registry:
    """The model versions of a store, and one of its lines of champions.

    Args:
        store: Where they lie.
        line: Whose champions, as `Store.line_of` names it; by default those of the output that the store lies in.
    """

    def __init__(self, store: Store, line: str = OWN_LINE) -> None:
        self.store = store
        self.line = line

    # --- what there is -----------------------------------------------------------------------------------------

    def bundle(self, version: str) -> Location:
        """The bundle of a version."""
        return self.store.version(version).bundle

    def lineage(self, version: str) -> Lineage | None:
        """Where a version comes from; None if the store does not know it.

        Raises:
            BundleError: The record is damaged.
        """
        return _read(Lineage.from_dict, self.store.version(version).lineage)

    def lineage_of(self, version: str) -> tuple[Lineage, ...]:
        """A version and its parents, back to the one that was trained from nothing, as far as the store knows them."""
        chain: list[Lineage] = []
        found = self.lineage(version)
        while found is not None and found.version not in {link.version for link in chain}:
            chain.append(found)
            found = self.lineage(found.parent) if found.parent else None
        return tuple(chain)

    def profile(self, version: str) -> Profile | None:
        """Profile of what a version learned; None if there is none that this version of vae-ops reads."""
        try:
            return _read(Profile.from_dict, self.store.version(version).profile)
        except BundleError:
            return None

    def rehearsal(self, version: str) -> pa.Table | None:
        """Real rows that were kept beside a version, to be rehearsed when it is refreshed."""
        location = self.store.version(version).rehearsal
        if not location.exists():
            return None
        try:
            with pa.ipc.open_file(location.read_bytes()) as file:
                return file.read_all()
        except pa.ArrowException as error:
            raise BundleError(f"{location.uri} is damaged ({error}): remove it, and nothing is rehearsed.") from error

    def champion(self) -> Champion | None:
        """The model in force; None if there never was one, or its files are gone."""
        move = self.last_move()
        if move is None or not self.store.has_model(move.version):
            return None
        lineage = self.lineage(move.version)
        return Champion(move.version, move.run_id, lineage, move.history, move.failure) if lineage else None

    def last_move(self) -> Move | None:
        """The record in force.

        Raises:
            BundleError: It is damaged.
        """
        numbers = self.store.champion_numbers(self.line)
        if not numbers:
            return None
        return _read(Move.from_dict, self.store.champion_record(numbers[-1], self.line))

    def versions(self) -> list[str]:
        """All versions that are there, but for those that have been champions of other lines only."""
        last = self.last_move()
        own = _crowned(last) if last else set()
        lines = [line for line in self.store.lines() if line != self.line]
        others = set().union(*(_crowned(move) for line in lines if (move := Registry(self.store, line).last_move())))
        return [version for version in self.store.versions() if version in own or version not in others]

    # --- moves -------------------------------------------------------------------------------------------------

    def keep(self, run: Run, lineage: Lineage, profile: Mapping[str, Any], rehearsal: pa.Table | None) -> None:
        """Copies a run's candidate among the versions; it is not champion yet.

        A version that is there already keeps its bundle, which is the same, and takes the new lineage: it has been made
        anew.

        Args:
            run: Run with the candidate.
            lineage: Where it comes from.
            profile: Profile of what it learned, as `Profile.to_dict` gives it.
            rehearsal: Real rows to keep beside it; None keeps none.

        Raises:
            UsageError: The run has no candidate.
        """
        lineage = self._without_loop(lineage)
        with self.store.adding_model(run, lineage.version) as place:
            place.lineage.write_json(dataclasses.asdict(lineage))
            place.profile.write_json(profile)
            if rehearsal is not None:
                place.rehearsal.write_atomic(_arrow_file(rehearsal))

    def _without_loop(self, lineage: Lineage) -> Lineage:
        """A refresh that changed nothing is its own parent; it keeps the parent it had."""
        if lineage.parent != lineage.version:
            return lineage
        known = self.lineage(lineage.version)
        return dataclasses.replace(lineage, parent=known.parent if known else None)

    def promote(self, run: Run, version: str, *, keep: int) -> str:
        """Makes a version champion, if the run made it and nothing speaks against it.

        A version that the run did not make is left as it is: a night that reuses the champion moves nothing. A refresh
        of a champion that has lost its place meanwhile, to another run or by a roll back, is noted as failed: it was
        compared with a model that is not in force any more. A retrain needs no parent and wins.

        Args:
            run: Run that publishes.
            version: Its model, among the versions already.
            keep: How many champions the history names, and so keeps.

        Returns:
            Why a challenger was not promoted, in one sentence; otherwise empty.

        Raises:
            UsageError: The version has not been kept.
        """
        lineage = self.lineage(version)
        if lineage is None:
            raise UsageError(f"Model {version} is not among the versions of {self.store.root.uri}: keep it first.")
        if lineage.run_id != run.run_id:
            return ""
        objection = ""

        def next_move(last: Move | None) -> Move | None:
            nonlocal objection
            objection = _objection(lineage, run, last)
            if last and objection:
                return _noting(last, lineage.decision, objection, run, version)
            return last if _is_champion(last, version, run) else _crowning(last, version, run, keep)

        self._move(next_move)
        return objection

    def note_failed(self, run: Run, *, decision: Literal["refresh", "retrain"], reason: str, version: str = "") -> None:
        """Notes beside the champion that a challenger failed; without a champion there is nothing to note it beside."""

        def next_move(last: Move | None) -> Move | None:
            return last and _noting(last, decision, reason, run, version)

        self._move(next_move)

    def rollback(self, to: str | None = None) -> Move:
        """Makes an earlier version champion again.

        Args:
            to: Any of `versions()`; by default the champion before this one.

        Raises:
            UsageError: There is no champion, no earlier one, or no such version.
        """
        made = self._move(lambda last: self._rolling_back(last, to))
        assert made is not None
        return made

    def _rolling_back(self, last: Move | None, to: str | None) -> Move:
        if last is None:
            raise UsageError(f"There is no champion in {self.store.root.uri}, so nothing can be rolled back.")
        target = to or (last.history[-2] if len(last.history) > 1 else "")
        known = self.versions()
        if target == last.version or target not in known:
            named = f"{target!r} is not an earlier version" if target else "it is the first that is remembered"
            there = ", ".join(known) or "none"
            raise UsageError(f"Cannot roll back from champion {last.version}: {named}; the store has {there}.")
        return _withdrawing(last, target)

    def _move(self, next_move: Callable[[Move | None], Move | None]) -> Move | None:
        """Creates the record that follows the last one, as often as others were first; None leaves things as they are.

        Somebody else's move ends every round but one's own, so this ends once the others have had their turn.
        """
        while True:
            last = self.last_move()
            move = next_move(last)
            if move is None or move is last:
                return move
            self.store.champion_line(self.line).make_dirs()
            # The token tells this record from an equal one of another writer, should an answer get lost on the way.
            values = {**dataclasses.asdict(move), "token": uuid.uuid4().hex}
            if self.store.champion_record(move.number, self.line).create_json(values):
                return move


def _objection(lineage: Lineage, run: Run, last: Move | None) -> str:
    """What speaks against promoting a version."""
    if last is None or _is_champion(last, lineage.version, run):
        return ""
    if lineage.version in last.withdrawn:
        return f"Model {lineage.version} was rolled back, so only `vae-ops rollback --to` makes it champion again."
    if lineage.decision == "refresh" and lineage.parent != last.version and lineage.version != last.version:
        return (
            f"Model {lineage.version} refreshes {lineage.parent}, which lost its place to {last.version} meanwhile; "
            "the next night starts from there."
        )
    return ""


def _is_champion(last: Move | None, version: str, run: Run) -> bool:
    return last is not None and (last.version, last.run_id) == (version, run.run_id)


def _crowned(last: Move) -> set[str]:
    """The champions of a line, as far as its last record remembers them."""
    return {last.version, *last.history, *last.withdrawn}


def _crowning(last: Move | None, version: str, run: Run, keep: int) -> Move:
    earlier = [known for known in (last.history if last else ()) if known != version]
    return Move(
        number=last.number + 1 if last else 1,
        kind="promoted",
        version=version,
        run_id=run.run_id,
        at=_now(),
        history=tuple([*earlier, version][-max(keep, 1) :]),
        withdrawn=last.withdrawn if last else (),
    )


def _noting(last: Move, decision: Literal["refresh", "retrain"], reason: str, run: Run, version: str) -> Move:
    if last.failure and (last.failure.run_id, last.failure.version) == (run.run_id, version):
        return last
    failure = Failure(decision, reason, run.run_id, version, _now())
    return dataclasses.replace(last, number=last.number + 1, kind="stayed", at=_now(), failure=failure)


def _withdrawing(last: Move, target: str) -> Move:
    """Goes back to a version; it and all champions before it stay in the history."""
    at = last.history.index(target) if target in last.history else len(last.history) - 1
    gone = [*last.history[at:], last.version]
    withdrawn = dict.fromkeys(known for known in (*last.withdrawn, *gone) if known != target)
    return Move(
        number=last.number + 1,
        kind="rolled back",
        version=target,
        run_id="",
        at=_now(),
        history=(*last.history[:at], target),
        withdrawn=tuple(withdrawn)[-_WITHDRAWN_KEPT:],
    )


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _arrow_file(rows: pa.Table) -> bytes:
    # Arrow IPC, as Parquet does not keep every Arrow type.
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="lz4", unify_dictionaries=True)
    with pa.ipc.new_file(sink, rows.schema, options=options) as writer:
        writer.write_table(rows)
    return sink.getvalue()


def _read(build: Callable[[Mapping[str, Any]], _Record], location: Location) -> _Record | None:
    """What a JSON file holds; None where there is no file."""
    try:
        return build(location.read_json())
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"Expected a record of vae-ops in {location.uri}, but it is damaged ({error}): restore it."
        ) from error
