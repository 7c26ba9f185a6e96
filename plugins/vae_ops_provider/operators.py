"""The five steps as operators: profile, train, generate (mapped over shards), validate, publish.

Each is one verb of `vae_ops.steps`, run by `process.py` in a process of its own; an operator only renders its
arguments, passes them on and says what an error means for the task. `task_group.py` joins the five.
"""

import hashlib
import json
import os
import re
import select
import stat
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, NoReturn

from airflow.providers.standard.operators.branch import BranchMixIn
from airflow.sdk import BaseOperator, Context

from vae_ops.errors import BusyError, SettingsError, VaeOpsError
from vae_ops_provider.assets import PublishedSnapshot, announce
from vae_ops_provider.compatibility import AirflowFailException, AirflowSkipException, conf
from vae_ops_provider.configuration import configured
from vae_ops_provider.connections import with_storage_options
from vae_ops_provider.limits import Limits, format_bytes, parse_cores, parse_memory
from vae_ops_provider.links import ModelLink, ReportLink, SnapshotLink
from vae_ops_provider.mirror import ProgressMirror
from vae_ops_provider.partitions import partition_directory
from vae_ops_provider.process import StepProcess
from vae_ops_provider.rendering import Layer, parse_choice, parse_integer, parse_names, parse_settings, parse_text

__all__ = [
    "VaeGenerateOperator",
    "VaeProfileOperator",
    "VaePublishOperator",
    "VaeStepOperator",
    "VaeTrainOperator",
    "VaeValidateOperator",
]

# Bad input and a gate that says no: the same on every try.
_FINAL_EXIT_CODES = (2, 3)
_REFUSALS = ("fail", "skip", "branch")
_SLUG_CHARACTERS = 120
_WAIT_SECONDS = 30
_MOST_WAITS = 120
_STDIN = 0


class VaeStepOperator(BaseOperator):
    """What the five operators share: one step of the walk, its arguments, its process and its errors.

    The tasks of one run find each other's artifacts through `store` and `run_id`, so give all of them the same
    arguments. All arguments are templates. The URIs may name the Airflow connection that opens them, as in
    `s3://lake@bucket/trades`; its credentials reach the step through its stdin and are written nowhere. What `python`,
    `memory_limit` and `cpu_limit` leave open, the section `[vae_ops]` of Airflow's configuration decides.

    Args:
        source: URI of the Parquet table: a file, a directory, a glob, local or on an object store.
        output_dir: URI of the directory that holds the snapshots (`output` is Airflow's name for a task's XCom).
        store: URI of the directory for runs and models; by default it lies inside `output_dir`.
        settings: Settings by section (see `vae_ops.settings.RunSettings`), such as `{"train": {"seed": 1}}`, or a
            list of such mappings of which the later win.
        run_id: Name of the run's artifacts; by default made of the DAG, the DAG run and the task group.
        python: Interpreter that has vae-ops and TensorFlow; by default the worker's own.
        partition: Key of the partition that the source is, by default that of the DAG run, if it has one. Each
            partition has a directory `partition=KEY` of its own below `output_dir` and `store`, and with it models of
            its own: a backfill does not depend on what other partitions were learned before it.
        memory_limit: Resident memory that the step's processes may hold, such as `4GiB`, beyond which it is ended with
            an `OutOfMemoryError`; by default whatever the worker has. It is looked at twice a second.
        cpu_limit: Processor cores that the step may use; by default all of the worker's. It does not change the rows.
        deferrable: Where another process is at work on the same run, wait for it in the triggerer, an hour at most,
            instead of failing this try; by default what Airflow's `[operators] default_deferrable` says.
    """

    step: ClassVar[str]
    template_fields: Sequence[str] = (
        "source",
        "output_dir",
        "store",
        "settings",
        "run_id",
        "python",
        "partition",
        "memory_limit",
        "cpu_limit",
        "deferrable",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"settings": "json"}
    ui_color = "#e8f0fe"

    _process: StepProcess | None = None
    _spec: Mapping[str, Any] | None = None
    _record: Mapping[str, Any] | None = None
    _waits = 0

    def __init__(
        self,
        *,
        source: str,
        output_dir: str,
        store: str | None = None,
        settings: Layer | Sequence[Layer] | None = None,
        run_id: str | None = None,
        python: str | None = None,
        partition: str | None = None,
        memory_limit: int | str | None = None,
        cpu_limit: int | str | None = None,
        deferrable: bool | str = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.output_dir = output_dir
        self.store = store
        self.settings = settings
        self.run_id = run_id
        self.python = python
        self.partition = partition
        self.memory_limit = memory_limit
        self.cpu_limit = cpu_limit
        self.deferrable = deferrable

    def execute(self, context: Context) -> dict[str, Any]:
        """Runs the step and returns its record, a small dict of paths and numbers.

        Raises:
            AirflowFailException: Trying again cannot help: bad input, or the gate said no.
            VaeOpsError: Anything else; Airflow tries again as the task's `retries` say.
        """
        try:
            return self._run(context)
        except BusyError as error:
            self._wait_for_others(error)
        except VaeOpsError as error:
            if error.exit_code in _FINAL_EXIT_CODES:
                raise AirflowFailException(str(error)) from error
            raise

    def execute_again(self, context: Context, event: Any = None, waits: int = 0) -> dict[str, Any]:
        """Does what `execute` does, after a wait in the triggerer; `waits` counts those of this try."""
        self._waits = waits
        # What a subclass makes of the record belongs to it too.
        return self.execute(context)

    def _run(self, context: Context) -> dict[str, Any]:
        begin = time.monotonic()
        self._spec = self.spec(context)
        memory, cores = configured(self.memory_limit, "memory_limit"), configured(self.cpu_limit, "cpu_limit")
        self._process = StepProcess(
            self.step,
            with_storage_options(self._spec),
            python=configured(self.python, "python"),
            limits=Limits(parse_memory(memory, "memory_limit"), parse_cores(cores, "cpu_limit")),
            is_orphan=_supervisor_hung_up,
        )
        mirror = ProgressMirror(self.log, context.get("task_state_store"))
        self._record = record = self._process.run(on_progress=mirror, on_chatter=self._log_chatter)
        seconds, peak = time.monotonic() - begin, format_bytes(self._process.peak_bytes)
        self.log.info("%s took %.0f s and held at most %s of memory", self.step, seconds, peak)
        return record

    def _wait_for_others(self, error: BusyError) -> NoReturn:
        """Leaves the worker's slot to others until it is time to look again, where that was asked for."""
        from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

        if str(self.deferrable).lower() != "true" or self._waits >= _MOST_WAITS:
            raise error
        self.log.info("Waiting for %d s without a slot: %s", _WAIT_SECONDS, error)
        trigger = TimeDeltaTrigger(timedelta(seconds=_WAIT_SECONDS))
        self.defer(trigger=trigger, method_name="execute_again", kwargs={"waits": self._waits + 1})

    def on_kill(self) -> None:
        """Ends the step's whole process group; runs inside a signal handler, so it neither reads nor waits."""
        if self._process is not None:
            self._process.kill()

    def spec(self, context: Context) -> dict[str, Any]:
        """The step's specification as JSON values: what `vae_ops.steps.StepSpec` is built from.

        Raises:
            SettingsError: A rendered argument makes no sense.
        """
        partition = parse_text(self.partition) or context.get("partition_key")
        return {
            "source": self.source,
            "output": _of_partition(self.output_dir, partition),
            "store": _of_partition(parse_text(self.store), partition),
            "run_id": parse_text(self.run_id) or _default_run_id(context, self.task_id),
            "settings": parse_settings(self.settings).to_dict(),
            "labels": {"airflow_dag_id": context["dag"].dag_id, "airflow_run_id": context["run_id"]},
            "partition": partition,
        }

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What the task read and wrote; asked for by Airflow's OpenLineage provider where that is installed.

        Args:
            task_instance: Not needed: the task was executed by this very object.
        """
        from vae_ops_provider.lineage import lineage_of

        return lineage_of(self.step, self._spec, self._record) if self._spec else None

    def _log_chatter(self, line: str) -> None:
        self.log.info("%s | %s", self.step, line)


class VaeProfileOperator(VaeStepOperator):
    """Profiles the source in one streaming pass and refuses what cannot be learned; see `VaeStepOperator`."""

    step = "profile"


class VaeTrainOperator(VaeStepOperator):
    """Trains the run's candidate model; see `VaeStepOperator` for the arguments."""

    step = "train"
    operator_extra_links = (ModelLink(),)


class VaeGenerateOperator(VaeStepOperator):
    """Draws one shard of the synthetic rows; map it with `.partial(shards=4, …).expand(shard=[0, 1, 2, 3])`.

    Args:
        shard: Number of this shard, from 0.
        shards: In how many shards the rows are drawn; it does not change the rows.
        kwargs: The arguments of every step, see `VaeStepOperator`.
    """

    step = "generate"
    template_fields: Sequence[str] = (*VaeStepOperator.template_fields, "shard", "shards")

    def __init__(self, *, shard: int | str = 0, shards: int | str = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shard = shard
        self.shards = shards

    def spec(self, context: Context) -> dict[str, Any]:
        """The specification of every step, and which shard to draw."""
        shard, shards = parse_integer(self.shard, "shard"), parse_integer(self.shards, "shards")
        return {**super().spec(context), "shard": shard, "shards": shards}


class VaeValidateOperator(VaeStepOperator, BranchMixIn):
    """Judges the synthetic rows; what a `fail` means for the DAG run is a setting.

    Args:
        on_fail: `fail` (default) fails the task for good. `skip` skips it, and with it whatever needs it to succeed,
            such as publish. `branch` lets it succeed and follows `fail_branch` alone, which otherwise is skipped.
        fail_branch: Ids of the tasks or task groups directly behind this task that a `fail` leads to.
        kwargs: The arguments of every step, see `VaeStepOperator`.
    """

    step = "validate"
    operator_extra_links = (ReportLink(),)
    template_fields: Sequence[str] = (*VaeStepOperator.template_fields, "on_fail", "fail_branch")
    # Airflow asks this before it runs a task again whose upstream branched elsewhere.
    inherits_from_skipmixin = True

    def __init__(self, *, on_fail: str = "fail", fail_branch: Sequence[str] | str = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.on_fail = on_fail
        self.fail_branch = fail_branch

    def execute(self, context: Context) -> dict[str, Any]:
        """Runs the step and returns verdict, metrics, noise floor and reasons.

        Raises:
            AirflowFailException: The verdict is `fail`, or an argument makes no sense.
            AirflowSkipException: The verdict is `fail`, which skips; the candidate stays in the store for inspection.
        """
        try:
            on_fail = parse_choice(self.on_fail, _REFUSALS, "on_fail")
            branch = parse_names(self.fail_branch)
            if (on_fail == "branch") != bool(branch):
                raise SettingsError("on_fail='branch' needs fail_branch, the tasks to follow, and nothing else does.")
        except SettingsError as error:
            raise AirflowFailException(str(error)) from error
        record = super().execute(context)
        if record["verdict"] == "borderline":
            self.log.warning("The verdict is borderline: %s", _reasons(record))
        if on_fail == "branch":
            self._follow(context, record, branch)
        elif record["verdict"] == "fail":
            self._refuse(context, record, skip=on_fail == "skip")
        return record

    def _refuse(self, context: Context, record: dict[str, Any], *, skip: bool) -> NoReturn:
        message = f"The gate said no, nothing will be published: {_reasons(record)}"
        _keep_record(context, record)
        if not skip:
            raise AirflowFailException(message)
        raise AirflowSkipException(message)

    def _follow(self, context: Context, record: dict[str, Any], branch: Sequence[str]) -> None:
        """Skips the tasks directly behind this one that the verdict does not lead to."""
        refused = set(self._expand_task_group_roots(context["ti"], branch))
        if strangers := sorted(refused - self.downstream_task_ids):
            raise AirflowFailException(
                f"fail_branch expects tasks directly behind {self.task_id!r}, but {strangers[0]!r} is none of them."
            )
        if record["verdict"] == "fail":
            self.log.warning("The gate said no, so %s: %s", " and ".join(sorted(refused)), _reasons(record))
        _keep_record(context, record)
        follows = refused if record["verdict"] == "fail" else self.downstream_task_ids - refused
        self.skip_all_except(context["ti"], sorted(follows))


def _reasons(record: Mapping[str, Any]) -> str:
    return " ".join(record["reasons"]) or "no reasons given."


def _keep_record(context: Context, record: dict[str, Any]) -> None:
    """Stores the record where a returned one would be: a task that fails or skips raises, and so returns nothing."""
    context["ti"].xcom_push(key="return_value", value=record)


class VaePublishOperator(VaeStepOperator):
    """Publishes the snapshot and tells it to the assets in `outlets`; see `VaeStepOperator` for the arguments."""

    step = "publish"
    operator_extra_links = (SnapshotLink(),)

    def execute(self, context: Context) -> dict[str, Any]:
        """Runs the step, returns its record and sends it as the `extra` of the asset events."""
        record = super().execute(context)
        announce(PublishedSnapshot.from_record(record), self.outlets, context, output=self.output_dir)
        return record


def _of_partition(directory: str | None, key: str | None) -> str | None:
    return partition_directory(directory, key) if directory and key else directory


def _default_run_id(context: Context, task_id: str) -> str:
    """One name for all tasks of a DAG run that stand in the same task group, whatever characters the ids hold."""
    group_id = task_id.rpartition(".")[0]
    names = [name for name in (context["dag"].dag_id, group_id, context["run_id"]) if name]
    readable = re.sub(r"[^A-Za-z0-9._~]+", "-", "-".join(names)).strip("-._~")[:_SLUG_CHARACTERS]
    return f"{readable}-{hashlib.blake2s(json.dumps(names).encode(), digest_size=4).hexdigest()}"


def _supervisor_hung_up() -> bool:
    """Whether the process that supervises this task is gone, so that nobody could be told of a result.

    It talks to its task over a socket in the place of stdin, which the kernel hangs up however it ended. Elsewhere, as
    in `dag.test()`, stdin is no socket.
    """
    try:
        if not stat.S_ISSOCK(os.fstat(_STDIN).st_mode):
            return False
    except OSError:
        return False
    poll = select.poll()
    poll.register(_STDIN, 0)  # hang-ups are reported unasked; what waits to be read is not our business
    return bool(poll.poll(0))
