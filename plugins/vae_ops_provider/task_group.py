"""`VaeAugmentation`: the whole walk from source to published snapshot as one task group.

It wires the five operators of `operators.py` and hands out the asset that the last of them updates.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Asset, TaskGroup

from vae_ops_provider.operators import (
    VaeGenerateOperator,
    VaeProfileOperator,
    VaePublishOperator,
    VaeTrainOperator,
    VaeValidateOperator,
)
from vae_ops_provider.rendering import Layer, named_settings

__all__ = ["VaeAugmentation"]

_SHARD_NAME = "shard {{ task.shard }} of {{ task.shards }}"


class VaeAugmentation(TaskGroup):
    """Profile, train, generate in shards, validate and publish.

        with DAG("nightly", schedule="@daily"):
            augmentation = VaeAugmentation("augment", source="s3://lake/trades", output="s3://lake/trades_augmented")
        with DAG("training", schedule=augmentation.asset): ...

    All arguments but `group_id`, `shards` and `asset` are templates.

    Args:
        group_id: Name of the group, and prefix of its tasks.
        source: URI of the Parquet table: a file, a directory, a glob, local or on an object store.
        output: URI of the directory that holds the snapshots.
        store: URI of the directory for runs and models; by default it lies inside `output`.
        rows: Synthetic rows; excludes `ratio`.
        ratio: Synthetic rows per source row; with a `target`, `"auto"` is the dose that provably helps to learn it, if
            any does. Without `rows` and `ratio`, one synthetic row per source row.
        target: Column that downstream models will learn; validation then measures what the rows are worth for it.
        exclude: Columns to leave out: a sequence, or text with commas between the names.
        seed: Decides sample, training and rows; the same source, settings and seed give the same bytes.
        time_budget_seconds: Wall clock that training should take on two quiet cores.
        refresh: What is done with the model of an earlier run: `auto` (the default) decides by what has moved; `reuse`,
            `refresh` and `retrain` are done whatever moved.
        settings: Further settings by section (see `vae_ops.settings.RunSettings`); they win over the arguments above.
        on_fail: What a verdict of `fail` does: `fail` fails the validate task, `skip` skips it and publish, `branch`
            follows `fail_branch` instead of publish.
        fail_branch: Ids of the tasks or task groups that a `fail` leads to; put them behind `.validate`.
        shards: Parallel generate tasks. Airflow fixes mapped tasks over a constant when it parses the DAG, so this is
            no template; it does not change the rows.
        asset: What a publish updates, an asset or its name; by default named `DAG_ID.GROUP_ID`.
        python: Interpreter that has vae-ops and TensorFlow; by default the worker's own.
        kwargs: Arguments of Airflow's `TaskGroup`, such as `default_args` with `retries` or `queue`.

    Attributes:
        validate: The task whose verdict decides; `augmentation.validate >> call_somebody` puts a task behind it.
        asset: The asset to schedule training DAGs on; the `extra` of its events is a
            `vae_ops_provider.assets.PublishedSnapshot`.
    """

    asset: Asset
    validate: VaeValidateOperator

    def __init__(
        self,
        group_id: str = "augment",
        *,
        source: str,
        output: str,
        store: str | None = None,
        rows: int | str | None = None,
        ratio: float | str | None = None,
        target: str | None = None,
        exclude: Sequence[str] | str = (),
        seed: int | str | None = None,
        time_budget_seconds: float | str | None = None,
        refresh: str | None = None,
        settings: Layer | None = None,
        on_fail: str = "fail",
        fail_branch: Sequence[str] | str = (),
        shards: int = 1,
        asset: Asset | str | None = None,
        python: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(group_id=group_id, **kwargs)
        named = named_settings(
            rows=rows,
            ratio=ratio,
            target=target,
            exclude=exclude,
            seed=seed,
            time_budget_seconds=time_budget_seconds,
            refresh=refresh,
        )
        self.asset = self._asset(asset)
        shared = {
            "source": source,
            "output_dir": output,
            "store": store,
            "settings": [named, settings or {}],
            "python": python,
        }
        with self:
            self.validate = self._wire(shared, shards, {"on_fail": on_fail, "fail_branch": fail_branch})

    def _wire(self, shared: Mapping[str, Any], shards: int, refusal: Mapping[str, Any]) -> VaeValidateOperator:
        profile = VaeProfileOperator(task_id="profile", **shared)
        train = VaeTrainOperator(task_id="train", **shared)
        generate = VaeGenerateOperator.partial(
            task_id="generate", shards=shards, map_index_template=_SHARD_NAME, **shared
        ).expand(shard=list(range(shards)))
        validate = VaeValidateOperator(task_id="validate", **refusal, **shared)
        publish = VaePublishOperator(task_id="publish", outlets=[self.asset], **shared)
        profile >> train >> generate >> validate >> publish
        return validate

    def _asset(self, asset: Asset | str | None) -> Asset:
        if isinstance(asset, Asset):
            return asset
        return Asset(asset or f"{self.dag.dag_id}.{self.group_id}")
