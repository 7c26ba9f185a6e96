"""The fault harness: injects faults into every step and counts the promises that were broken; see `faults/`.

python tests/system/fault_harness.py --full      every case; minutes, and a table as JSON on stdout
python tests/system/fault_harness.py             one case in so many, as in the tests
python tests/system/fault_harness.py --only kill --verbose
"""

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.stand_in_model import LENIENT
from tests.system.faults.case import Case, Outcome
from tests.system.faults.local_cases import local_cases
from tests.system.faults.night import Stage, working
from tests.system.faults.pair_cases import pair_cases
from tests.system.faults.places import LocalDisk
from tests.system.faults.source_cases import source_cases

__all__ = ["local_outcomes", "some_of", "table_of"]

# Telling rows apart by trees takes most of a night, and no fault depends on it.
SETTINGS = {"gate": {**LENIENT["gate"], "max_c2st_auc": "off"}, "publish": {"keep_snapshots": 2}}


def some_of(cases: Iterable[Case], share: int) -> list[Case]:
    """One case in `share` of each kind and step, at least one."""
    groups: dict[tuple[str, str, str], list[Case]] = defaultdict(list)
    for case in cases:
        groups[case.kind, case.mode, case.step].append(case)
    return [case for group in groups.values() for case in group[len(group) // 2 % share :: share] or group[:1]]


@contextlib.contextmanager
def local_stage(root: Path) -> Iterator[tuple[Stage, LocalDisk]]:
    """A local disk, two nights after the first."""
    disk = LocalDisk(root)
    with working() as worker:
        stage = Stage(disk, worker, SETTINGS)
        stage.prepare()
        yield stage, disk


def local_outcomes(root: Path, share: int, only: str = "") -> Iterator[Outcome]:
    """Plays the cases of a local disk."""
    with local_stage(root) as (stage, disk):
        every = itertools.chain.from_iterable(cases(stage, disk) for cases in (local_cases, source_cases, pair_cases))
        for case in some_of((case for case in every if only in str(case)), share):
            yield case.play(stage)


def table_of(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Faults by step and kind, how the walks ended, and every violation."""
    faults: dict[str, Counter[str]] = defaultdict(Counter)
    ended: dict[str, Counter[str]] = defaultdict(Counter)
    violations: list[str] = []
    unclear: Counter[str] = Counter()
    for outcome in outcomes:
        case = outcome.case
        faults[f"{case.step} ({case.mode})"][case.kind] += 1
        ended[case.kind][outcome.ended] += 1
        violations += [f"{case}: {violation}" for violation in outcome.violations]
        if outcome.unclear:
            unclear[outcome.unclear] += 1
    return {
        "faults": sum(sum(kinds.values()) for kinds in faults.values()),
        "violations": violations,
        "faults by step": {step: dict(kinds) for step, kinds in sorted(faults.items())},
        "how walks ended": {kind: dict(ways) for kind, ways in sorted(ended.items())},
        "errors that are not ours": dict(unclear.most_common()),
    }


def _tell(outcomes: Iterable[Outcome], *, verbose: bool) -> Iterator[Outcome]:
    for outcome in outcomes:
        if verbose or outcome.violations:
            sys.stderr.write("\n    ".join([f"{outcome.case}: {outcome.ended}", *outcome.violations]) + "\n")
            sys.stderr.flush()
        yield outcome


def main() -> int:
    """Returns 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="play every case")
    parser.add_argument("--only", default="", help="play cases whose description holds this text")
    parser.add_argument("--verbose", action="store_true", help="tell of each case how it ended")
    chosen = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vae-ops-faults-") as directory:
        played = local_outcomes(Path(directory), 1 if chosen.full else 12, chosen.only)
        table = table_of(_tell(played, verbose=chosen.verbose))
    table["seconds"] = round(time.monotonic() - begin)
    sys.stdout.write(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    return 1 if table["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
