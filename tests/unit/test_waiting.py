"""What an operator does while another process is at work on the same run, and once nobody waits for it any more."""

import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from vae_ops.errors import BusyError, StepFailedError
from vae_ops_provider.operators import VaePublishOperator, VaeTrainOperator, VaeValidateOperator
from vae_ops_provider.process import StepProcess

StandIn = Callable[[str], str]

CONTEXT: Any = {"dag": SimpleNamespace(dag_id="d"), "run_id": "r"}
BUSY = "emit('error', kind='BusyError', message='Process 7 holds the run.', exit_code=1); sys.exit(1)"


def operator(kind: type[Any], python: str, **kwargs: Any) -> Any:
    return kind(task_id="t", source="in", output_dir="out", python=python, **kwargs)


@pytest.mark.parametrize("kind", [VaeTrainOperator, VaeValidateOperator, VaePublishOperator])
@pytest.mark.parametrize("deferrable", [True, "True"])
def test_a_deferrable_task_waits_in_the_triggerer(stand_in: StandIn, kind: type[Any], deferrable: bool | str) -> None:
    with pytest.raises(TaskDeferred) as waiting:
        operator(kind, stand_in(BUSY), deferrable=deferrable).execute(CONTEXT)
    assert (waiting.value.method_name, waiting.value.kwargs) == ("execute_again", {"waits": 1})
    ahead = waiting.value.trigger.moment - datetime.now(UTC)
    assert timedelta(seconds=20) < ahead <= timedelta(seconds=30)


def test_it_goes_on_as_if_it_had_never_waited(stand_in: StandIn) -> None:
    python = stand_in("emit('result', value={'verdict': 'borderline', 'reasons': []})")
    record = operator(VaeValidateOperator, python, deferrable=True).execute_again(CONTEXT, event=None, waits=3)
    assert record["verdict"] == "borderline"


def test_it_does_not_wait_for_ever(stand_in: StandIn) -> None:
    task = operator(VaeTrainOperator, stand_in(BUSY), deferrable=True)
    with pytest.raises(TaskDeferred) as waiting:
        task.execute_again(CONTEXT, waits=119)
    assert waiting.value.kwargs == {"waits": 120}
    with pytest.raises(BusyError, match="Process 7"):
        task.execute_again(CONTEXT, waits=120)


@pytest.mark.parametrize("deferrable", [False, "False", ""])
def test_any_other_task_fails_this_try(stand_in: StandIn, deferrable: bool | str) -> None:
    with pytest.raises(BusyError, match="Process 7"):
        operator(VaeTrainOperator, stand_in(BUSY), deferrable=deferrable).execute(CONTEXT)


def test_a_step_that_nobody_waits_for_is_ended(stand_in: StandIn) -> None:
    seen: list[Any] = []
    process = StepProcess(
        "train", {}, python=stand_in("emit('progress', message='-'); time.sleep(600)"), is_orphan=lambda: bool(seen)
    )
    with pytest.raises(StepFailedError, match="the process that waited for it is gone"):
        process.run(on_progress=seen.append, on_chatter=print)


def test_the_supervisor_is_gone_when_its_socket_hangs_up() -> None:
    from vae_ops_provider.operators import _supervisor_hung_up

    before = os.dup(0)
    ours, theirs = socket.socketpair()
    try:
        os.dup2(theirs.fileno(), 0)
        theirs.close()
        assert not _supervisor_hung_up()
        ours.send(b"something to read")
        assert not _supervisor_hung_up()
        ours.close()
        assert _supervisor_hung_up()
        os.close(0)
        assert not _supervisor_hung_up()
    finally:
        os.dup2(before, 0)
        os.close(before)
    assert not _supervisor_hung_up()
