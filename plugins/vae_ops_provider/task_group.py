"""`VaeAugmentation`: the whole walk from source to published snapshot as one task group.

It wires the five operators of `operators.py`, with a person of `approval.py` before the last where that is asked for,
and hands out the asset that the last of them updates.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetAlias, TaskGroup

from vae_ops.errors import SettingsError
from vae_ops_provider.approval import APPROVALS, VaeApprovalOperator
from vae_ops_provider.operators import (
    VaeGenerateOperator,
    VaeProfileOperator,
    VaePublishOperator,
    VaeTrainOperator,
    VaeValidateOperator,
)
from vae_ops_provider.rendering import Layer, named_settings, parse_choice

__all__ = ["VaeAugmentation"]

_SHARD_NAME = "shard {{ task.shard }} of {{ task.shards }}"
_TASKS = ("profile", "train", "generate", "validate", "approve", "publish")


class VaeAugmentation(TaskGroup):
    """Profile, train, generate in shards, validate and publish.

        with DAG("nightly", schedule="@daily"):
            augmentation = VaeAugmentation("augment", source="s3://lake/trades", output="s3://lake/trades_augmented")
        with DAG("training", schedule=augmentation.asset): ...

    All arguments but `group_id`, `shards`, `approval`, `approval_timeout`, `asset` and `tasks` are templates.

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
        strictness: Limits of the gate: `strict`, `standard` (the default) or `lenient`, see
            `vae_ops.settings.GATE_PRESETS`.
        settings: Further settings by section (see `vae_ops.settings.RunSettings`); they win over the arguments above.
        partition: Key of the partition that the source is, by default that of the DAG run, if it has one. Each
            partition has a directory `partition=KEY` of its own below `output`, with snapshots and models of its own.
        on_fail: What a verdict of `fail` does: `fail` fails the validate task, `skip` skips it and publish, `branch`
            follows `fail_branch` instead of publish.
        fail_branch: Ids of the tasks or task groups that a `fail` leads to; put them behind `.validate`.
        approval: Puts a task `approve` before publish that waits for a person where the verdict is `borderline`, or
            `always`. Approve publishes, Reject keeps the previous snapshot. None asks nobody.
        approval_timeout: How long a person has; who does not answer rejects. None waits for as long as it takes.
        shards: Parallel generate tasks. Airflow fixes mapped tasks over a constant when it parses the DAG, so this is
            no template; it does not change the rows.
        asset: What a publish updates: an asset, its name, or an `AssetAlias` where the output is known only when the
            run starts; by default an asset named `DAG_ID.GROUP_ID`.
        python: Interpreter that has vae-ops and TensorFlow; by default the worker's own.
        tasks: Operator arguments of single tasks, such as `{"train": {"queue": "training", "pool": "gpu"}}`; the names
            are `profile`, `train`, `generate`, `validate`, `approve` and `publish`.
        kwargs: Arguments of Airflow's `TaskGroup`, such as `default_args` with `retries` or `queue`.

    Raises:
        SettingsError: `approval` or a name in `tasks` is unknown.

    Attributes:
        validate: The task whose verdict decides; `augmentation.validate >> call_somebody` puts a task behind it.
        asset: The asset to schedule training DAGs on; the `extra` of its events is a
            `vae_ops_provider.assets.PublishedSnapshot`.
    """

    asset: Asset | AssetAlias
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
        strictness: str | None = None,
        settings: Layer | None = None,
        partition: str | None = None,
        on_fail: str = "fail",
        fail_branch: Sequence[str] | str = (),
        approval: str | None = None,
        approval_timeout: timedelta | None = None,
        shards: int = 1,
        asset: Asset | AssetAlias | str | None = None,
        python: str | None = None,
        tasks: Mapping[str, Mapping[str, Any]] | None = None,
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
            strictness=strictness,
        )
        shared = {
            "source": source,
            "output_dir": output,
            "store": store,
            "settings": [named, settings or {}],
            "python": python,
            "partition": partition,
        }
        own = _by_task(tasks or {})
        self.asset = self._asset(asset)
        with self:
            drawn = self._draw(shared, own, shards)
            self.validate = VaeValidateOperator(
                task_id="validate", **{"on_fail": on_fail, "fail_branch": fail_branch, **shared, **own["validate"]}
            )
            drawn >> self.validate
            judged = self._approval(approval, approval_timeout, own["approve"]) if approval else self.validate
            judged >> VaePublishOperator(task_id="publish", outlets=[self.asset], **{**shared, **own["publish"]})

    def _draw(self, shared: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]], shards: int) -> Any:
        """The tasks that end with all rows drawn; gives the last of them."""
        profile = VaeProfileOperator(task_id="profile", **{**shared, **own["profile"]})
        train = VaeTrainOperator(task_id="train", **{**shared, **own["train"]})
        generate = VaeGenerateOperator.partial(
            task_id="generate", shards=shards, map_index_template=_SHARD_NAME, **{**shared, **own["generate"]}
        ).expand(shard=list(range(shards)))
        profile >> train >> generate
        return generate

    def _approval(self, ask: str, timeout: timedelta | None, own: Mapping[str, Any]) -> VaeApprovalOperator:
        """The person behind the gate."""
        waiting: dict[str, Any] = {
            # The time that a DAG gives its tasks to compute is none that a person should be measured by.
            "execution_timeout": None,
            "response_timeout": timeout,
            "defaults": VaeApprovalOperator.REJECT if timeout else None,
        }
        approve = VaeApprovalOperator(
            task_id="approve",
            validate_task_id=self.validate.task_id,
            ask=parse_choice(ask, APPROVALS, "approval"),
            **{**waiting, **own},
        )
        self.validate >> approve
        return approve

    def _asset(self, asset: Asset | AssetAlias | str | None) -> Asset | AssetAlias:
        if isinstance(asset, Asset | AssetAlias):
            return asset
        return Asset(asset or f"{self.dag.dag_id}.{self.group_id}")


def _by_task(arguments: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The arguments of each task, none where none were given."""
    if unknown := sorted(set(arguments) - set(_TASKS)):
        raise SettingsError(f"tasks expects arguments by task, one of {', '.join(_TASKS)}; got {unknown[0]!r}.")
    return {name: arguments.get(name, {}) for name in _TASKS}
