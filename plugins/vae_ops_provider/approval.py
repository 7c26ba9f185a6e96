"""A person between the gate and the publishing: asked when a verdict is borderline, with what the gate found at hand.

The asking, the waiting and the skipping are Airflow's own human-in-the-loop operator; here stands when to ask and what
to say. `task_group.py` puts the task between validate and publish, and only where approval was asked for.
"""

import re
from collections.abc import Mapping
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context

from vae_ops_provider.compatibility import conf
from vae_ops_provider.links import tab_below

__all__ = ["APPROVALS", "VaeApprovalOperator"]

APPROVALS = ("borderline", "always")
"""When a person is asked."""

_SUBJECT = "Publish the snapshot of {{ dag.dag_id }}?"
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~#])")


class VaeApprovalOperator(ApprovalOperator):
    """Waits for a person to approve a snapshot, unless its verdict asks for nobody.

    Approve lets the tasks behind this one run; Reject skips them, so that the previous snapshot stays in force. Nothing
    waits in a worker meanwhile. The answer, and who gave it, stay with the task instance.

    Args:
        validate_task_id: Task whose verdict decides, and whose findings the person sees.
        ask: `borderline` asks for such a verdict only, `always` for a pass as well.
        subject: Headline of the question; a template.
        kwargs: Arguments of Airflow's `ApprovalOperator`, such as `response_timeout`, `assigned_users`, `notifiers`.
    """

    ui_color = "#fef7e0"

    def __init__(
        self, *, validate_task_id: str, ask: str = "borderline", subject: str = _SUBJECT, **kwargs: Any
    ) -> None:
        super().__init__(subject=subject, **kwargs)
        self.validate_task_id = validate_task_id
        self.ask = ask

    def execute(self, context: Context) -> Any:
        """Asks and gives the worker back, or returns at once where nobody need be asked."""
        record = context["ti"].xcom_pull(task_ids=self.validate_task_id)
        if self.ask == "borderline" and record["verdict"] != "borderline":
            self.log.info("The verdict is %s, so nobody is asked.", record["verdict"])
            return None
        self.body = _question(record, _page_of(self.validate_task_id, context))
        return super().execute(context)


def _question(record: Mapping[str, Any], page: str) -> str:
    """What the person reads, as Markdown."""
    remedies = [*record.get("remedies", ()), *[""] * len(record["reasons"])]
    findings = [
        f"- {_plain(reason)} {_plain(remedy)}".rstrip()
        for reason, remedy in zip(record["reasons"], remedies, strict=False)
    ]
    return "\n".join(
        [
            f"The verdict is **{_plain(record['verdict'])}**.",
            "",
            *findings,
            "",
            f"[What the gate found]({page}), or as a file: {_plain(record['report_path'])}",
            "",
            "*Approve* publishes the snapshot. *Reject* keeps the previous one.",
        ]
    )


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: a column may bear any name."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _page_of(task_id: str, context: Context) -> str:
    """Our page of a task instance of the same run, inside Airflow's."""
    return tab_below(conf.get("api", "base_url", fallback=""), context["dag"].dag_id, context["run_id"], task_id)
