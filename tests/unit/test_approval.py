from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.providers.standard.operators import hitl
from airflow.sdk import DAG

from vae_ops.errors import SettingsError
from vae_ops_provider.approval import VaeApprovalOperator
from vae_ops_provider.task_group import VaeAugmentation

RECORD = {
    "verdict": "borderline",
    "reasons": ["Column '*a* [b](http://evil)\n# c' is off by 3 %.", "Copies."],
    "remedies": ["Train longer."],
    "report_path": "/out/_report.html",
}

# Airflow 3.3 parks the task, earlier ones defer it.
WAITING = getattr(hitl, "TaskAwaitingInput", TaskDeferred)


def ask(monkeypatch: pytest.MonkeyPatch, record: dict[str, Any], **arguments: Any) -> dict[str, Any] | None:
    """What would be asked; None where nobody is."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **question: asked.append(question))
    instance = SimpleNamespace(id="1", xcom_pull=lambda task_ids: {"augment.validate": record}[task_ids])
    context = {"ti": instance, "task_instance": instance, "dag": SimpleNamespace(dag_id="d/ü"), "run_id": "r+1"}
    task = VaeApprovalOperator(task_id="approve", validate_task_id="augment.validate", **arguments)
    try:
        assert task.execute(context) is None  # type: ignore[arg-type]
    except WAITING:
        return asked[0]
    assert asked == []
    return None


def test_a_borderline_verdict_asks_with_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ask(monkeypatch, RECORD)
    assert asked is not None
    assert asked["options"] == ["Approve", "Reject"]
    lines = asked["body"].splitlines()
    assert lines[0] == "The verdict is **borderline**."
    assert lines[2:4] == [r"- Column '\*a\* \[b\](http://evil) \# c' is off by 3 %. Train longer.", "- Copies."]
    assert "/dags/d%2F%C3%BC/runs/r%2B1/tasks/augment.validate/plugin/vae-ops-task)" in asked["body"]
    assert r"/out/\_report.html" in asked["body"]


@pytest.mark.parametrize(("when", "verdict", "asks"), [
    ("borderline", "pass", False), ("always", "pass", True), ("always", "borderline", True),
])  # fmt: skip
def test_a_pass_asks_nobody_unless_always(monkeypatch: pytest.MonkeyPatch, when: str, verdict: str, asks: bool) -> None:
    record = {**RECORD, "verdict": verdict, "reasons": [], "remedies": []}
    assert (ask(monkeypatch, record, ask=when) is not None) == asks


def augmentation(**arguments: Any) -> DAG:
    defaults = {"execution_timeout": timedelta(minutes=1), "retries": 2, "queue": "small"}
    with DAG("nightly", default_args=defaults) as dag:
        VaeAugmentation(source="in", output="out", **arguments)
    return dag


def test_nobody_is_asked_unless_that_was_asked_for() -> None:
    assert "augment.approve" not in augmentation().task_dict


def test_a_person_stands_between_validate_and_publish() -> None:
    dag = augmentation(approval="borderline")
    assert list(dag.task_dict)[-2:] == ["augment.approve", "augment.publish"]
    assert dag.task_dict["augment.validate"].downstream_task_ids == {"augment.approve"}
    assert dag.task_dict["augment.approve"].downstream_task_ids == {"augment.publish"}


def test_a_person_has_the_time_that_was_granted_and_not_the_tasks_time() -> None:
    patient: Any = augmentation(approval="borderline").task_dict["augment.approve"]
    assert (patient.execution_timeout, patient.response_timeout, patient.defaults) == (None, None, None)
    hurried: Any = augmentation(approval="always", approval_timeout=timedelta(hours=8)).task_dict["augment.approve"]
    assert (hurried.response_timeout, hurried.defaults) == (timedelta(hours=8), ["Reject"])


def test_arguments_of_single_tasks_win_over_those_of_all() -> None:
    dag = augmentation(
        approval="always",
        tasks={
            "train": {"queue": "training", "pool": "gpu"},
            "generate": {"queue": "wide"},
            "approve": {"subject": "Well?"},
        },
    )
    queues = {name.removeprefix("augment."): task.queue for name, task in dag.task_dict.items()}
    assert queues == {
        "profile": "small", "train": "training", "generate": "wide", "validate": "small", "approve": "small",
        "publish": "small",
    }  # fmt: skip
    assert dag.task_dict["augment.train"].pool == "gpu"
    assert dag.task_dict["augment.approve"].subject == "Well?"


@pytest.mark.parametrize(("arguments", "said"), [
    ({"approval": "sometimes"}, "approval expects one of 'borderline', 'always', got 'sometimes'"),
    ({"tasks": {"trian": {}}}, "one of profile, train, .*; got 'trian'"),
])  # fmt: skip
def test_nonsense_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        augmentation(**arguments)
