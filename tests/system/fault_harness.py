"""The fault harness: injects faults into every step and counts the promises that were broken; see `faults/`.

python tests/system/fault_harness.py --full      every case; minutes, and a table as JSON on stdout
python tests/system/fault_harness.py             one case in so many, as in the tests
python tests/system/fault_harness.py --only kill --verbose
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.object_store import ObjectStore, moto_server, reaching
from tests.system.faults.bucket import Bucket
from tests.system.faults.case import Case, Outcome
from tests.system.faults.local_cases import kill_cases, local_cases
from tests.system.faults.night import Stage, working
from tests.system.faults.object_cases import object_cases, object_pair_cases
from tests.system.faults.pair_cases import pair_cases
from tests.system.faults.places import LocalDisk
from tests.system.faults.proxy import proxying
from tests.system.faults.source_cases import source_cases
from vae_ops.settings import GateSettings

__all__ = ["PLACES", "local_stage", "object_stage", "outcomes", "some_of", "table_of"]

# No fault depends on what the gate measures, which would take most of a night.
_NOT_MEASURED = {field.name: "off" for field in dataclasses.fields(GateSettings) if field.name.startswith("max_")}
SETTINGS = {"gate": _NOT_MEASURED, "publish": {"keep_snapshots": 2}}
PLACES = ("disk", "bucket")
# From this share on, what takes long to set up is left out.
SHORT = 50


def some_of(cases: Iterable[Case], share: int) -> list[Case]:
    """One case in `share` of each kind, at least one, spread over the steps."""
    kinds: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        kinds[case.kind].append(case)
    # Each kind begins elsewhere, so that few cases of many kinds do not all strike in the same step.
    starts = {kind: number * len(kinds[kind]) // len(kinds) % share for number, kind in enumerate(kinds)}
    return [case for kind, group in kinds.items() for case in group[starts[kind] :: share] or group[-1:]]


@contextlib.contextmanager
def local_stage(root: Path, mode: str = "refresh") -> Iterator[tuple[Stage, LocalDisk]]:
    """A local disk, two nights after the first; `mode` says how the third gets its model."""
    disk = LocalDisk(root)
    with working() as worker:
        stage = Stage(disk, worker, SETTINGS, mode)
        stage.prepare()
        yield stage, disk


def _local_outcomes(root: Path, share: int, only: str) -> Iterator[Outcome]:
    """Plays the cases of a local disk."""
    with local_stage(root) as (stage, disk):
        every = [*local_cases(stage, disk), *source_cases(stage, disk), *pair_cases(stage, disk)]
        yield from _played(stage, every, share, only)
    for mode in ("retrain", "reuse") if share < SHORT else ():
        with local_stage(root / mode, mode) as (stage, _):
            yield from _played(stage, kill_cases(stage), 3 * share, only)


def _played(stage: Stage, cases: Iterable[Case], share: int, only: str) -> Iterator[Outcome]:
    for case in some_of((case for case in cases if only in str(case)), share):
        yield case.play(stage)


@contextlib.contextmanager
def object_stage(root: Path, endpoint: str) -> Iterator[tuple[Stage, Bucket]]:
    """A bucket on an S3 server, two nights after the first; walks reach it through a proxy."""
    objects = ObjectStore(endpoint, "faults")
    temporary = root / "temporary"
    temporary.mkdir()
    with reaching(objects), proxying(endpoint) as proxy, working() as worker:
        objects.location().fs.mkdir(objects.bucket)
        bucket = Bucket(objects, proxy, temporary)
        stage = Stage(bucket, worker, SETTINGS, "refresh")
        stage.prepare()
        yield stage, bucket


def _object_outcomes(root: Path, share: int, only: str) -> Iterator[Outcome]:
    """Plays the cases of an object store."""
    with moto_server() as endpoint, object_stage(root, endpoint) as (stage, bucket):
        by_step = share < SHORT
        pairs = object_pair_cases(stage, bucket, by_step=by_step)
        every = [case for case in (*object_cases(stage, bucket, by_step=by_step), *pairs) if only in str(case)]
        # A walk on an object store takes seconds, so the short form does without most kinds.
        for case in some_of(every, share) if by_step else every[share // 2 :: share]:
            yield case.play(stage)


def table_of(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Faults by step and kind, how the walks ended, and every violation."""
    faults: dict[str, Counter[str]] = defaultdict(Counter)
    ended: dict[str, Counter[str]] = defaultdict(Counter)
    violations: list[str] = []
    unclear: Counter[str] = Counter()
    missed = 0
    for outcome in outcomes:
        case = outcome.case
        violations += [f"{case}: {violation}" for violation in outcome.violations]
        if not outcome.has_struck:
            missed += 1
            continue
        faults[f"{case.step} ({case.mode})"][case.kind] += 1
        ended[case.kind][outcome.ended] += 1
        if outcome.unclear:
            unclear[outcome.unclear] += 1
    return {
        "faults": sum(sum(kinds.values()) for kinds in faults.values()),
        "violations": violations,
        "walks that did not meet their fault": missed,
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


def outcomes(place: str, root: Path, share: int, only: str = "") -> Iterator[Outcome]:
    """Plays one case in `share`, on a `disk` or in a `bucket`, below a directory that is not there yet."""
    root.mkdir()
    return _local_outcomes(root, share, only) if place == "disk" else _object_outcomes(root, share, only)


def main() -> int:
    """Returns 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="play every case")
    parser.add_argument("--share", type=int, default=12, help="otherwise one case in so many of each kind and step")
    parser.add_argument("--place", choices=PLACES, help="only there")
    parser.add_argument("--only", default="", help="only cases whose description holds this text")
    parser.add_argument("--verbose", action="store_true", help="tell of each case how it ended")
    chosen = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vae-ops-faults-", dir=_in_memory()) as directory:
        places = [chosen.place] if chosen.place else PLACES
        share = 1 if chosen.full else chosen.share
        played = (outcomes(place, Path(directory, place), share, chosen.only) for place in places)
        table = table_of(_tell(itertools.chain.from_iterable(played), verbose=chosen.verbose))
    table["seconds"] = round(time.monotonic() - begin)
    sys.stdout.write(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    return 1 if table["violations"] else 0


def _in_memory() -> str | None:
    """A filesystem that loses no time with syncing, if there is one."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


if __name__ == "__main__":
    sys.exit(main())
