"""What our tasks returned, read from Airflow's database: the one source of everything that the pages show.

Only return values of tasks whose operator is one of ours are read, and only as plain JSON: Airflow's decoder would
build whatever objects a value names. `access.py` has decided by then who may see them; `app.py` shows them.
"""

import json
import math
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XCOM_RETURN_KEY, XComModel
from sqlalchemy import Row, Select, and_, func, null, select
from sqlalchemy.orm import Session

from vae_ops_provider.operators import (
    VaeGenerateOperator,
    VaeProfileOperator,
    VaePublishOperator,
    VaeTrainOperator,
    VaeValidateOperator,
)

__all__ = ["SHOWN_RUNS", "Table", "TableRun", "TaskKey", "TaskRecord", "find_tables", "read_dag_run", "read_task"]

SHOWN_RUNS = 30
_VERDICTS = ("pass", "borderline", "fail")
_STEPS: Final[Mapping[str, str]] = {
    operator.__name__: operator.step
    for operator in (VaeProfileOperator, VaeTrainOperator, VaeGenerateOperator, VaeValidateOperator, VaePublishOperator)
}
# A run has one task of each of these in a table's group; the shards of `generate` have nothing to tell a person.
_TELLING = [name for name, step in _STEPS.items() if step != "generate"]


@dataclass(frozen=True, order=True)
class TaskKey:
    """Names one task instance; `map_index` is -1 of a task that is not mapped."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @property
    def group(self) -> str:
        """The task group that the task stands in; empty outside of any."""
        return self.task_id.rpartition(".")[0]


@dataclass(frozen=True)
class TaskRecord:
    """One of our tasks in one DAG run, and what it returned.

    Attributes:
        key: Which task.
        step: Its verb, such as `train`.
        state: Airflow's state of it; empty before it is scheduled.
        returned_at: When it returned; None as long as it has not.
        values: What it returned; empty as long as it has not.
    """

    key: TaskKey
    step: str
    state: str
    returned_at: datetime | None
    values: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A text of the record; empty where there is none."""
        value = self.values.get(name)
        return value if isinstance(value, str) else ""

    def texts(self, name: str) -> tuple[str, ...]:
        """The texts of a list in the record."""
        value = self.values.get(name)
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()

    def number(self, name: str) -> float | None:
        """A finite number of the record; None where there is none."""
        return _finite(self.values.get(name))

    def numbers(self, name: str) -> dict[str, float]:
        """The finite numbers of a mapping in the record, by name."""
        value = self.values.get(name)
        found = {key: _finite(item) for key, item in value.items()} if isinstance(value, dict) else {}
        return {key: item for key, item in found.items() if item is not None}


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > sys.float_info.max:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class TableRun:
    """One walk from source to snapshot: our tasks of one task group in one DAG run.

    Attributes:
        run_id: The DAG run.
        run_after: When it was due.
        partition: Its partition key; empty where it has none.
        tasks: What the tasks returned, by step; without `generate`.
    """

    run_id: str
    run_after: datetime
    partition: str = ""
    tasks: Mapping[str, TaskRecord] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """What the gate said; empty where it has not."""
        verdict = self._text("verdict", "validate", "publish")
        return verdict if verdict in _VERDICTS else ""

    @property
    def model_version(self) -> str:
        """The model that drew the rows."""
        return self._text("model_version", "publish", "train")

    @property
    def decision(self) -> str:
        """Whether the model was reused, refreshed or retrained."""
        return self._text("decision", "train")

    @property
    def reason(self) -> str:
        """Why it was."""
        return self._text("reason", "train")

    @property
    def reasons(self) -> tuple[str, ...]:
        """The findings that weighed most in the verdict."""
        return self.tasks["validate"].texts("reasons") if "validate" in self.tasks else ()

    @property
    def rows_synthetic(self) -> float | None:
        """Synthetic rows in the snapshot."""
        return self.tasks["publish"].number("rows_synthetic") if "publish" in self.tasks else None

    @property
    def rows_source(self) -> float | None:
        """Source rows in the snapshot; where nothing was published, those that were profiled."""
        for step, name in (("publish", "rows_source"), ("profile", "rows")):
            if step in self.tasks and (rows := self.tasks[step].number(name)) is not None:
                return rows
        return None

    @property
    def snapshot_path(self) -> str:
        """Where the snapshot is; empty where nothing was published."""
        return self._text("snapshot_path", "publish")

    @property
    def published_at(self) -> datetime | None:
        """When it was published; None where it was not."""
        return self.tasks["publish"].returned_at if self.snapshot_path else None

    @property
    def metrics(self) -> Mapping[str, float]:
        """What the gate measured."""
        return self.tasks["validate"].numbers("metrics") if "validate" in self.tasks else {}

    @property
    def noise_floor(self) -> Mapping[str, float]:
        """What real rows score against real rows."""
        return self.tasks["validate"].numbers("noise_floor") if "validate" in self.tasks else {}

    @property
    def reported(self) -> TaskRecord | None:
        """The task whose record names the report: the snapshot's outlives the one in the store."""
        tasks = (self.tasks.get(step) for step in ("publish", "validate"))
        return next((task for task in tasks if task and task.text("report_path")), None)

    def _text(self, name: str, *steps: str) -> str:
        return next((text for step in steps if step in self.tasks and (text := self.tasks[step].text(name))), "")


@dataclass(frozen=True)
class Table:
    """An augmented table: the runs of one task group of a DAG, the newest first.

    Attributes:
        dag_id: The DAG.
        group: The task group; empty where the tasks stand in none.
        map_index: Which one, of a mapped task group; otherwise -1.
        runs: At least one.
    """

    dag_id: str
    group: str
    map_index: int
    runs: tuple[TableRun, ...]

    @property
    def judged(self) -> TableRun | None:
        """The newest run that the gate has judged."""
        return next((run for run in self.runs if run.verdict), None)

    @property
    def published(self) -> TableRun | None:
        """The newest run that has published."""
        return next((run for run in self.runs if run.snapshot_path), None)


def find_tables(session: Session, dag_ids: Collection[str]) -> list[Table]:
    """The augmented tables of these DAGs with their latest runs, in alphabetical order.

    Args:
        session: Of Airflow's database.
        dag_ids: DAGs that the reader may see.
    """
    return [table for dag_id in _augmenting(session, dag_ids) for table in _tables_of(session, dag_id)]


def read_dag_run(session: Session, dag_id: str, run_id: str) -> list[tuple[Table, TableRun]]:
    """What one DAG run did for each of its tables; nothing where there is no such run or none of our tasks in it."""
    rows = session.execute(_select_tasks(_TELLING).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    return [(table, table.runs[0]) for table in _arrange(dag_id, rows)]


def read_task(session: Session, key: TaskKey) -> TaskRecord | None:
    """One of our tasks; None where there is no such task or it is none of ours."""
    wanted = _select_tasks(_STEPS).where(
        TaskInstance.dag_id == key.dag_id,
        TaskInstance.run_id == key.run_id,
        TaskInstance.task_id == key.task_id,
        TaskInstance.map_index == key.map_index,
    )
    row = session.execute(wanted).one_or_none()
    return _record(row) if row else None


def _augmenting(session: Session, dag_ids: Collection[str]) -> list[str]:
    """Those of the DAGs whose newest run has one of our tasks.

    The newest run of each stands for the DAG, as the table of task instances has no index on operators: in a large
    deployment looking through all of it would take minutes.
    """
    newest = select(func.max(DagRun.id)).where(DagRun.dag_id.in_(dag_ids)).group_by(DagRun.dag_id)
    ours = (
        select(TaskInstance.dag_id)
        .join(DagRun, _same_run())
        .where(DagRun.id.in_(newest), TaskInstance.operator.in_(_TELLING))
        .distinct()
    )
    return sorted(session.scalars(ours))


def _tables_of(session: Session, dag_id: str) -> list[Table]:
    latest = select(DagRun.id).where(DagRun.dag_id == dag_id).order_by(DagRun.run_after.desc()).limit(SHOWN_RUNS)
    ids = session.scalars(latest).all()  # MySQL takes no LIMIT inside IN
    rows = session.execute(_select_tasks(_TELLING).where(DagRun.id.in_(ids)))
    return _arrange(dag_id, rows)


def _same_run() -> Any:
    return and_(DagRun.dag_id == TaskInstance.dag_id, DagRun.run_id == TaskInstance.run_id)


def _select_tasks(operators: Iterable[str]) -> Select[Any]:
    returned = and_(
        XComModel.dag_run_id == DagRun.id,
        XComModel.task_id == TaskInstance.task_id,
        XComModel.map_index == TaskInstance.map_index,
        XComModel.key == XCOM_RETURN_KEY,
    )
    partition = getattr(DagRun, "partition_key", null())  # Airflow knows partitions since 3.2
    return (
        select(
            TaskInstance.dag_id,
            TaskInstance.run_id,
            TaskInstance.task_id,
            TaskInstance.map_index,
            TaskInstance.operator,
            TaskInstance.state,
            DagRun.run_after,
            partition.label("partition"),
            XComModel.value,
            XComModel.timestamp,
        )
        .join(DagRun, _same_run())
        .outerjoin(XComModel, returned)
        .where(TaskInstance.operator.in_(list(operators)))
        .order_by(DagRun.run_after.desc(), DagRun.id.desc(), TaskInstance.task_id)
    )


def _record(row: Row[Any]) -> TaskRecord:
    key = TaskKey(row.dag_id, row.run_id, row.task_id, row.map_index)
    return TaskRecord(key, _STEPS[row.operator], str(row.state or ""), row.timestamp, _plain(row.value))


def _plain(value: object) -> Mapping[str, Any]:
    """The JSON object in a database cell, which Airflow fills with the object or with its text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def _arrange(dag_id: str, rows: Iterable[Row[Any]]) -> list[Table]:
    """Sorts tasks into tables and, within each, into runs; the runs stay in the order of the rows."""
    tables: dict[tuple[str, int], dict[str, TableRun]] = {}
    for row in rows:
        task = _record(row)
        runs = tables.setdefault((task.key.group, task.key.map_index), {})
        run = runs.setdefault(row.run_id, TableRun(row.run_id, row.run_after, row.partition or "", {}))
        runs[row.run_id] = TableRun(run.run_id, run.run_after, run.partition, {**run.tasks, task.step: task})
    return [Table(dag_id, *place, tuple(runs.values())) for place, runs in sorted(tables.items())]
