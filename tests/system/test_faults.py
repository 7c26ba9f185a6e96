"""Faults in short: one case in so many of each kind and step; `fault_harness.py --full` plays them all."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.system.fault_harness import PLACES, local_stage, outcomes, table_of
from tests.system.faults.night import BEFORE, Stage
from tests.system.faults.places import LocalDisk, locations
from tests.system.faults.promises import latest_id
from vae_ops.store import Output

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHARES = {"disk": int(os.environ.get("VAE_OPS_FAULTS_SHARE", "60")), "bucket": 150}
FEWEST = {"disk": 10, "bucket": 2}


@pytest.mark.parametrize("place", PLACES)
def test_no_promise_is_broken(place: str, tmp_path: Path) -> None:
    table = table_of(outcomes(place, tmp_path / place, SHARES[place]))
    assert table["violations"] == []
    assert table["faults"] >= FEWEST[place]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, LocalDisk]]:
    with local_stage(tmp_path_factory.mktemp("stage")) as found:
        yield found


def broken(stage: Stage) -> list[str]:
    """What the harness finds amiss of two nights that were published and then tampered with."""
    output, _ = locations(stage.place)
    return [*stage.for_readers({latest_id(output)}), *stage.after_a_night()]


def test_the_harness_finds_nothing_amiss_where_nothing_is(stage: tuple[Stage, LocalDisk]) -> None:
    stage[0].restore(BEFORE)
    assert broken(stage[0]) == []


def test_the_harness_sees_a_torn_snapshot(stage: tuple[Stage, LocalDisk]) -> None:
    stage[0].restore(BEFORE)
    file = next(Path(stage[1].output, "snapshots").glob("*/synthetic-00000.parquet"))
    file.write_bytes(file.read_bytes()[:-100])
    assert any("Parquet" in violation or "not what was published" in violation for violation in broken(stage[0]))


def test_the_harness_sees_doubled_rows(stage: tuple[Stage, LocalDisk]) -> None:
    stage[0].restore(BEFORE)
    file = next(Path(stage[1].output, "snapshots").glob("*/source-00000.parquet"))
    rows = pq.read_table(file)
    pq.write_table(pa.concat_tables([rows, rows]), file)
    assert any("rows, which is not what" in violation for violation in broken(stage[0])), broken(stage[0])


def test_the_harness_sees_litter(stage: tuple[Stage, LocalDisk]) -> None:
    stage[0].restore(BEFORE)
    Path(stage[1].output, "snapshots", ".making-x").mkdir()
    assert [violation for violation in broken(stage[0]) if "making" in violation]


def test_the_harness_sees_a_pointer_to_nothing(stage: tuple[Stage, LocalDisk]) -> None:
    stage[0].restore(BEFORE)
    output, _ = locations(stage[0].place)
    pointer = Output(output).latest.read_json()
    Output(output).latest.write_json({**pointer, "snapshot_id": "0" * 32})
    assert stage[0].for_readers({latest_id(output)})


def test_a_table_counts_by_step_and_kind() -> None:
    assert json.loads(json.dumps(table_of([])))["faults"] == 0
