"""Two walks at once: the first stands still at a point, as a slow or frozen machine does, while the second goes on.

The second walks the same run (a scheduler that has lost sight of the first), or another table into the same store and
output (another DAG).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.system.faults.case import Case, Outcome, how_it_ended, point_case
from tests.system.faults.night import BEFORE, NIGHT, STEPS, Stage, before
from tests.system.faults.places import LocalDisk, locations
from tests.system.faults.points import MODIFYING
from tests.system.faults.promises import latest_id

__all__ = ["TwoAtOnce", "pair_cases"]


@dataclass(frozen=True)
class TwoAtOnce(Case):
    """The plot: both come to their ends or are refused, and the latest snapshot is of one that came to its end.

    Attributes:
        other_source: What the second walks; empty is the same run as the first.
    """

    other_source: str = ""

    def play(self, stage: Stage) -> Outcome:
        clean = stage.expected(self.state, self.to_the_end)
        stage.restore(self.state)
        second = stage.request(self.to_the_end) | ({"source": self.other_source} if self.other_source else {})
        with self.trouble():
            answer = stage.walk_two(stage.request(self.steps, self.fault), second)
        found = _violations_of(answer)
        if self.other_source:
            found += self._who_is_latest(stage, answer, clean.before, clean.after)
        else:
            found += stage.for_readers({clean.before, clean.after})
        # A scheduler that sees the second one done has nothing to do again but the whole night.
        found += stage.walk_again(STEPS if self.mode == "steps" else self.steps)
        found += stage.for_readers({clean.after})
        found += stage.after_a_night(None if self.other_source else clean.names)
        ended = f"{how_it_ended(answer['first'])}, the other one {how_it_ended(answer['second'])}"
        return Outcome(self, ended, tuple(found), answer["stopped"])

    def _who_is_latest(self, stage: Stage, answer: Mapping[str, Any], before_id: str, own: str) -> list[str]:
        latest = latest_id(locations(stage.place)[0])
        has_ended = {who: how_it_ended(answer[who]) == "done" for who in ("first", "second")}
        others = has_ended["second"] and latest not in (before_id, own)
        if not (others or (has_ended["first"] and latest == own) or (latest == before_id and not any(has_ended))):
            return [f"the latest snapshot is {latest}, which fits neither of the two: {has_ended}"]
        return stage.for_readers({latest})


def pair_cases(stage: Stage, disk: LocalDisk) -> Iterator[Case]:
    """A standstill wherever something is about to change, or to be locked."""
    other = disk.other_source(NIGHT + 1)
    for state, steps in [(BEFORE, ("augment",)), *((before(step), (step,)) for step in STEPS)]:
        for point in stage.points_of(state, steps):
            if point["occurrence"] == 1 and point["operation"] in (*MODIFYING, "lock"):
                yield point_case("pause", state, steps, point, label="the same run twice", make=TwoAtOnce)
                if steps == ("augment",):
                    yield point_case(
                        "pause", state, steps, point, label="another run", make=TwoAtOnce, other_source=other
                    )


def _violations_of(answer: Mapping[str, Any]) -> list[str]:
    """The second is done or refused; the first may stumble over what the second has done, but not die or hang."""
    second, first = answer["second"], answer["first"]
    found = []
    if second["signal"] or (second["error"] and not second["error"]["ours"]):
        found.append(f"the second of two walks was {how_it_ended(second)}: {second['error']}")
    if first["signal"]:
        found.append(f"the first of two walks was {how_it_ended(first)}")
    return found
