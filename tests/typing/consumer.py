"""A user's own file, as strict mypy sees it: `make lint` checks it, and nothing runs it.

An `assert_type` holds what the public names promise; a comment that ignores an error holds what they refuse, as mypy
reports an ignore without an error.
"""

from datetime import UTC, datetime
from typing import Any, assert_type

import pyarrow as pa
from airflow.sdk import DAG, Asset, Context, task

from vae_ops import TabularVAE, augment, load_latest, validate
from vae_ops.publishing import LatestSnapshot
from vae_ops.records import AugmentResult
from vae_ops.settings import GenerateSettings, RunSettings
from vae_ops_provider.assets import PublishedSnapshot
from vae_ops_provider.connections import use_connections
from vae_ops_provider.operators import VaeProfileOperator, VaePublishOperator, VaeTrainOperator, VaeValidateOperator
from vae_ops_provider.task_group import VaeAugmentation


def engine(source: str, output: str) -> None:
    """The four verbs that Python users call."""
    result = augment(source, output, settings=RunSettings(generate=GenerateSettings(ratio="auto")))
    assert_type(result, AugmentResult)
    assert_type(load_latest(output), LatestSnapshot)
    assert_type(validate(source, output, report="report").verdict, str)
    vae = TabularVAE(seed=0, time_budget_seconds=60).fit(source)
    assert_type(vae, TabularVAE)
    drawn: pa.Table = vae.sample(10, seed=1)
    assert_type(TabularVAE.load(vae.save("model")), TabularVAE)
    del drawn
    augment(source, output, rows=10)  # type: ignore[call-arg]
    GenerateSettings(ratio="much")  # type: ignore[arg-type]


@task
def learn() -> None:
    """A task that reads what was published."""
    use_connections("s3://lake@bucket/out")


def read(context: Context) -> str:
    """The newest snapshot among the events that started a run."""
    published = PublishedSnapshot.from_events(context["triggering_asset_events"])
    assert_type(published, PublishedSnapshot | None)
    return published.snapshot_path if published else ""


with DAG("typed", schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    night = VaeAugmentation(source="s3://lake@bucket/in", output="s3://lake@bucket/out", ratio="auto", target="price")
    assert_type(night.validate, VaeValidateOperator)
    night >> learn()
    arguments: dict[str, Any] = {"source": "in", "output_dir": "out", "store": "store"}
    profile = VaeProfileOperator(task_id="profile", **arguments)
    train = VaeTrainOperator(task_id="train", memory_limit="4GiB", **arguments)
    profile >> train >> VaePublishOperator(task_id="publish", outlets=[Asset("typed")], **arguments)
    VaeProfileOperator("profile", source="in", output_dir="out")  # type: ignore[misc]
    VaeTrainOperator(task_id="again", source="in")  # type: ignore[call-arg]
