"""A source that changes while it is read: replaced, overwritten, appended to, cut short or deleted, at every read.

A night either is refused, or publishes the table as it was or as it became, never a mixture.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from tests.system.faults.case import Case, Outcome, how_it_ended, point_case
from tests.system.faults.night import BEFORE, NIGHT, STEPS, Stage, before
from tests.system.faults.places import LocalDisk, locations, night_parts
from tests.system.faults.promises import latest_id, published_rows
from vae_ops.store import Output

__all__ = ["source_cases"]

_CHANGES = ("replace", "overwrite", "append", "truncate", "delete")


@dataclass(frozen=True)
class _SourceChanges(Case):
    """The plot: the walk suffers, then the table as it is now is walked, and then the night's own table once more."""

    def play(self, stage: Stage) -> Outcome:
        clean = stage.expected(self.state, self.to_the_end)
        stage.restore(self.state)
        stage.place.bring_source(NIGHT)
        answer = stage.walk(self.steps, self.fault)
        changed = _table_at(stage.place.source)
        found = _violations_of_mixing(stage, clean.before, [pa.concat_tables(night_parts(NIGHT)), changed])
        whole_walk = STEPS if self.mode == "steps" else self.steps
        if changed is None:
            found += _violations_of_acceptance(stage, whole_walk)
        else:
            found += stage.walk_again(whole_walk)
            found += _violations_of_mixing(stage, "", [changed])
        stage.place.bring_source(NIGHT)
        found += stage.walk_again(whole_walk)
        found += stage.for_readers({clean.after})
        found += stage.after_a_night()
        return Outcome(self, how_it_ended(answer), tuple(found), self.has_struck(answer))


def source_cases(stage: Stage, disk: LocalDisk) -> Iterator[Case]:
    """Every way to change, at every read of every step."""
    other = disk.spare_part(NIGHT + 1)
    for state, steps in [(BEFORE, ("augment",)), *((before(step), (step,)) for step in STEPS)]:
        for point in stage.points_of(state, steps):
            if point["role"].startswith("SOURCE") or (point["operation"], point["occurrence"]) == ("report", 1):
                for how in _CHANGES:
                    fault = {"how": how, "other": other}
                    label = f"source changes: {how}"
                    yield point_case(
                        "source changes", state, steps, point, fault=fault, label=label, make=_SourceChanges
                    )


def _table_at(source: str) -> pa.Table | None:
    """The table as it is now; None if it cannot be read."""
    try:
        return pq.read_table(source).unify_dictionaries()
    except pa.ArrowInvalid:
        return None


def _violations_of_mixing(stage: Stage, before_id: str, tables: list[pa.Table | None]) -> list[str]:
    """Looks at the source rows of the latest snapshot, unless it is that of the night before."""
    output, _ = locations(stage.place)
    latest = latest_id(output)
    found = stage.for_readers({latest})
    if latest != before_id:
        rows = published_rows(Output(output).snapshot(latest), synthetic=False)
        if rows.to_pylist() not in [table.to_pylist() for table in tables if table is not None]:
            found.append(f"{rows.num_rows} source rows were published that are neither the old table nor the new one")
    return found


def _violations_of_acceptance(stage: Stage, steps: tuple[str, ...]) -> list[str]:
    answer = stage.walk(steps)
    if answer["error"] and answer["error"]["ours"]:
        return []
    return [f"a damaged source must be refused, but the walk was {how_it_ended(answer)}: {answer['error']}"]
