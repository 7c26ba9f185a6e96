"""Source, store and output behind an Airflow connection, and the lineage of such a night: one `airflow dags test`.

It runs in a process of its own, with an Airflow whose only way to the object store is the connection `lake`. Everything
that the night leaves behind is then searched for the connection's password.
"""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.object_store import ObjectStore, reaching
from tests.stand_in_interpreter import write_interpreter
from tests.stand_in_model import LENIENT, some_rows

pytestmark = [pytest.mark.airflow]

PASSWORD = "correct-horse-battery-staple"

# The interpreter of the steps, which first writes down all that others on the machine could see of it.
WITNESS = """#!{python}
import os, sys
with open({seen!r}, "ab") as file:
    for name in ("cmdline", "environ"):
        file.write(open(f"/proc/self/{{name}}", "rb").read() + b"\\n")
os.execv({interpreter!r}, [{interpreter!r}, *sys.argv[1:]])
"""

DAG_FILE = """
from airflow.sdk import DAG, task
from vae_ops_provider.task_group import VaeAugmentation

BUCKET = {bucket!r}

@task
def count_rows():
    import pyarrow.parquet as pq
    from vae_ops import load_latest
    from vae_ops.storage import locate
    from vae_ops_provider.connections import use_connections

    output = f"s3://lake@{{BUCKET}}/out"
    use_connections(output)
    found = locate(load_latest(output).snapshot_path)
    rows = pq.read_table(found.path, filesystem=found.arrow_filesystem()).num_rows
    print(f"a consumer read {{rows}} rows")

with DAG("connected"):
    night = VaeAugmentation(
        source=f"s3://lake@{{BUCKET}}/in/*.parquet",
        output=f"s3://lake@{{BUCKET}}/out",
        store=f"s3://lake@{{BUCKET}}/store",
        rows=100,
        settings={settings!r},
        shards=2,
        python={interpreter!r},
    )
    night >> count_rows()
"""


@dataclass(frozen=True)
class Night:
    """What one run left behind."""

    bucket: str
    objects: dict[str, bytes]
    home: Path
    seen: bytes
    said: str
    events: list[dict[str, Any]]


def environment(store: ObjectStore, home: Path) -> dict[str, str]:
    connection = {
        "conn_type": "aws",
        "login": "AKIALAKE",
        "password": PASSWORD,
        "extra": {"endpoint_url": store.endpoint, "region_name": "us-east-1"},
    }
    kept = {name: value for name, value in os.environ.items() if name not in store.environment}
    return {
        **kept,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_CONN_LAKE": json.dumps(connection),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        # At DEBUG, Airflow's own `dags test` prints the secrets that it is asked to mask.
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
            {"type": "file", "log_file_path": str(home / "lineage.jsonl"), "append": True}
        ),
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }


def prepare(store: ObjectStore, home: Path) -> None:
    (home / "dags").mkdir()
    witness = home / "witness"
    arguments = {"python": sys.executable, "seen": str(home / "seen"), "interpreter": write_interpreter(home)}
    witness.write_text(WITNESS.format(**arguments))
    witness.chmod(0o755)
    (home / "dags" / "connected.py").write_text(
        DAG_FILE.format(bucket=store.bucket, settings=LENIENT, interpreter=str(witness))
    )
    sink = pa.BufferOutputStream()
    pq.write_table(some_rows(400), sink)
    store.location("in", "a.parquet").write_atomic(sink.getvalue().to_pybytes())


def airflow(*arguments: str, env: dict[str, str]) -> str:
    command = [sys.executable, "-m", "airflow", *arguments]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def migrate(home: Path, env: dict[str, str]) -> None:
    """An Airflow database, copied where other tests have made one: that takes a second instead of half a minute."""
    made = Path(os.environ["AIRFLOW_HOME"], "airflow.db")
    if not made.exists():
        airflow("db", "migrate", env=env)
        return
    with contextlib.closing(sqlite3.connect(made)) as one, contextlib.closing(sqlite3.connect(home / made.name)) as two:
        one.backup(two)


@pytest.fixture(scope="module")
def night(moto_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Night:
    home = tmp_path_factory.mktemp("airflow")
    with reaching(ObjectStore(moto_endpoint, "connected")) as store:
        store.location().fs.mkdir(store.bucket)
        prepare(store, home)
        env = environment(store, home)
        migrate(home, env)
        said = airflow("dags", "test", "connected", env=env)
        objects = {key: store.location(key).read_bytes() for key in sorted(store.keys())}
    lines = (home / "lineage.jsonl").read_text().splitlines()
    events = [event for event in map(json.loads, lines) if event["eventType"] == "COMPLETE"]
    return Night(store.bucket, objects, home, (home / "seen").read_bytes(), said, events)


def event_of(night: Night, task: str) -> dict[str, Any]:
    return next(event for event in night.events if event["job"]["name"].endswith(f".{task}"))


def test_the_snapshot_lies_behind_the_connection(night: Night) -> None:
    pointer = json.loads(night.objects["out/_latest.json"])
    assert pointer["snapshot_path"] == f"s3://lake@{night.bucket}/out/snapshots/{pointer['snapshot_id']}"
    parts = [key for key in night.objects if key.startswith("out/snapshots/") and key.endswith(".parquet")]
    assert sum(pq.read_metadata(pa.BufferReader(night.objects[key])).num_rows for key in parts) == 500
    assert any(key.startswith("store/models/") for key in night.objects)
    assert {key.partition("/")[0] for key in night.objects} == {"in", "out", "store"}


def test_a_task_that_reads_it_needs_one_call(night: Night) -> None:
    assert "a consumer read 500 rows" in night.said


def test_the_password_is_nowhere(night: Night) -> None:
    files = {str(path): path.read_bytes() for path in night.home.rglob("*") if path.is_file()}
    assert {"airflow.db", "lineage.jsonl", "seen"} <= {Path(name).name for name in files}
    everything = {**night.objects, **files, "output": night.said.encode()}
    assert [name for name, content in everything.items() if PASSWORD.encode() in content] == []
    # The steps were told in some way all the same: six processes wrote down what others could see of them.
    assert night.seen.count(b"vae_ops.steps") == 6
    assert b"AIRFLOW_CONN" not in night.seen


def test_the_manifest_names_the_connection_and_no_more(night: Night) -> None:
    (manifest,) = (json.loads(night.objects[key]) for key in night.objects if key.endswith("/_manifest.json"))
    assert manifest["source"] == f"s3://lake@{night.bucket}/in/*.parquet"
    assert b"AKIALAKE" not in b"".join(night.objects.values())


def test_lineage_leads_from_the_source_to_the_snapshot(night: Night) -> None:
    space = f"s3://{night.bucket}"
    flow = {
        task: (
            {(found["namespace"], found["name"]) for found in event_of(night, task)["inputs"]},
            {(found["namespace"], found["name"]) for found in event_of(night, task)["outputs"]},
        )
        for task in ("profile", "train", "generate", "validate")
    }
    assert flow == {
        "profile": ({(space, "in")}, set()),
        "train": ({(space, "in")}, {(space, "store/models")}),
        "generate": ({(space, "store/models")}, {(space, "store/runs")}),
        "validate": ({(space, "in"), (space, "store/runs")}, set()),
    }
    published = event_of(night, "publish")["outputs"]
    assert (space, "out") in {(found["namespace"], found["name"]) for found in published}


def test_lineage_says_which_column_comes_from_which(night: Night) -> None:
    (snapshot,) = (found for found in event_of(night, "publish")["outputs"] if found["name"] == "out")
    columns = snapshot["facets"]["columnLineage"]["fields"]
    assert set(columns) == {"amount", "count", "kind"}
    (origin,) = columns["amount"]["inputFields"]
    assert (origin["namespace"], origin["name"], origin["field"]) == (f"s3://{night.bucket}", "in", "amount")
    assert [how["subtype"] for how in origin["transformations"]] == ["IDENTITY", "TRANSFORMATION"]
    schema = {field["name"]: field["type"] for field in snapshot["facets"]["schema"]["fields"]}
    assert schema["_is_synthetic"] == "bool"
    assert snapshot["outputFacets"]["outputStatistics"]["rowCount"] == 500
    pointer = json.loads(night.objects["out/_latest.json"])
    assert snapshot["facets"]["version"]["datasetVersion"] == pointer["snapshot_id"]


def test_lineage_carries_what_was_measured_and_no_values(night: Night) -> None:
    (source,) = event_of(night, "profile")["inputs"]
    metrics = source["inputFacets"]["dataQualityMetrics"]
    assert metrics["rowCount"] == 400
    assert metrics["columnMetrics"]["kind"] == {"nullCount": 0, "distinctCount": 3, "quantiles": {}}
    (judged,) = (found for found in event_of(night, "validate")["inputs"] if found["name"] == "store/runs")
    findings = judged["inputFacets"]["dataQualityAssertions"]["assertions"]
    (report,) = (json.loads(night.objects[key]) for key in night.objects if key.endswith("/_report.json"))
    assert {found["assertion"]: found["success"] for found in findings} == {
        found["metric"]: found["verdict"] == "pass" for found in report["findings"]
    }
