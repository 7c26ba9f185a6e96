import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from vae_ops import errors
from vae_ops.errors import ContentError, GateRefusedError, InputError, StepFailedError, UsageError
from vae_ops.progress import Progress
from vae_ops_provider.process import StepProcess

StandIn = Callable[[str], str]

IGNORE_SIGTERM_WITH_CHILD = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
emit("progress", fraction=0.1, message=f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


class Heard:
    def __init__(self) -> None:
        self.progress: list[Progress] = []
        self.chatter: list[str] = []

    def run(self, process: StepProcess) -> dict[str, Any]:
        return process.run(on_progress=self.progress.append, on_chatter=self.chatter.append)


def run(python: str, spec: dict[str, Any] | None = None, **kwargs: Any) -> tuple[dict[str, Any], Heard]:
    heard = Heard()
    return heard.run(StepProcess("train", spec or {}, python=python, **kwargs)), heard


def assert_gone(pids: list[int]) -> None:
    # SIGKILL takes effect a moment after it was sent, and a killed orphan stays a zombie until init collects it.
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=2)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_result_and_progress_come_back(stand_in: StandIn) -> None:
    python = stand_in("""
emit("progress", fraction=0.5, message="half", values={"loss": 1.5})
print("loaded 3 libraries", file=sys.stderr)
emit("result", value={"spec": SPEC, "step": STEP})
""")
    value, heard = run(python, {"seed": 2**63 - 1, "source": "ä"})
    assert value == {"spec": {"seed": 2**63 - 1, "source": "ä"}, "step": "train"}
    assert heard.progress == [Progress("train", 0.5, "half", {"loss": 1.5})]
    assert heard.chatter == ["loaded 3 libraries"]


def test_a_large_spec_and_much_chatter_do_not_block(stand_in: StandIn) -> None:
    python = stand_in("""
sys.stderr.write(("x" * 99 + chr(10)) * 5000)
emit("result", value={"columns": len(SPEC["exclude"])})
""")
    value, heard = run(python, {"exclude": ["c" * 50] * 5000})
    assert value == {"columns": 5000}
    assert len(heard.chatter) == 5000


def test_stdout_that_is_no_event_is_chatter(stand_in: StandIn) -> None:
    _, heard = run(stand_in("print('hello'); print('[1]'); print('{\"a\": 1}'); emit('result', value={})"))
    assert heard.chatter == ["hello", "[1]", '{"a": 1}']


def test_the_last_line_needs_no_newline(stand_in: StandIn) -> None:
    value, _ = run(stand_in("sys.stdout.write(json.dumps({'event': 'result', 'value': {'rows': 1}}))"))
    assert value == {"rows": 1}


@pytest.mark.parametrize("name", list(errors.__all__))
def test_every_error_of_the_tree_comes_back_as_itself(stand_in: StandIn, name: str) -> None:
    expected = getattr(errors, name)
    python = stand_in(f"emit('error', kind={name!r}, message='Column a is empty.', exit_code={expected.exit_code})\n")
    with pytest.raises(expected, match="Column a is empty") as caught:
        run(python)
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("exit_code", "expected"), [(1, StepFailedError), (2, InputError), (3, GateRefusedError), (None, StepFailedError)]
)
def test_an_unknown_error_is_known_by_its_exit_code(
    stand_in: StandIn, exit_code: int | None, expected: type[Exception]
) -> None:
    python = stand_in(f"emit('error', kind='NewerError', message='m', exit_code={exit_code}); sys.exit(1)")
    with pytest.raises(expected, match="m"):
        run(python)


def test_an_error_event_wins_over_a_result(stand_in: StandIn) -> None:
    python = stand_in("emit('result', value={}); emit('error', kind='ContentError', message='late', exit_code=2)")
    with pytest.raises(ContentError, match="late"):
        run(python)


def test_a_death_without_words_tells_the_last_words(stand_in: StandIn) -> None:
    with pytest.raises(StepFailedError, match=r"'train' ended with exit code 7 .* first \| second"):
        run(stand_in("print('first', 'second', sep='\\n', file=sys.stderr); sys.exit(7)"))


def test_exit_zero_without_a_result_is_a_failure(stand_in: StandIn) -> None:
    with pytest.raises(StepFailedError, match="exit code 0 and left no result"):
        run(stand_in("pass"))


def test_sigkill_is_named_as_lack_of_memory(stand_in: StandIn) -> None:
    with pytest.raises(StepFailedError, match=r"SIGKILL.*memory"):
        run(stand_in("os.kill(os.getpid(), signal.SIGKILL)"))


def test_a_missing_interpreter_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"python= .*/nowhere/python"):
        run("/nowhere/python")


def test_no_airflow_variable_reaches_the_child(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW_CONN_S3", "AIRFLOW_CTX_DAG_ID", "_AIRFLOW_WWW_USER_PASSWORD"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("MY_AIRFLOW_THING", "kept")
    value, _ = run(stand_in("emit('result', value={'names': [n for n in os.environ if 'AIRFLOW' in n]})"))
    assert value == {"names": ["MY_AIRFLOW_THING"]}


def test_the_child_leads_a_session_of_its_own(stand_in: StandIn) -> None:
    value, _ = run(stand_in("emit('result', value={'leads': os.getsid(0) == os.getpid()})"))
    assert value == {"leads": True}


def test_kill_from_outside_takes_the_whole_group(stand_in: StandIn) -> None:
    process = StepProcess("train", {}, python=stand_in(IGNORE_SIGTERM_WITH_CHILD), grace_seconds=0.3)
    pids: list[int] = []

    def on_progress(progress: Progress) -> None:
        pids.extend(map(int, progress.message.split()))
        threading.Timer(0.1, process.kill).start()

    started = time.monotonic()
    with pytest.raises(StepFailedError, match="stopped from outside"):
        process.run(on_progress=on_progress, on_chatter=print)
    assert time.monotonic() - started < 10
    assert len(pids) == 2
    assert_gone(pids)


def test_kill_inside_a_signal_handler_does_not_disturb_the_reader(stand_in: StandIn) -> None:
    process = StepProcess("train", {}, python=stand_in(IGNORE_SIGTERM_WITH_CHILD), grace_seconds=0.3)
    pids: list[int] = []

    def on_progress(progress: Progress) -> None:
        pids.extend(map(int, progress.message.split()))
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()

    before = signal.signal(signal.SIGUSR1, lambda *_: process.kill())
    try:
        with pytest.raises(StepFailedError, match="stopped from outside"):
            process.run(on_progress=on_progress, on_chatter=print)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert_gone(pids)


def test_an_exception_in_the_caller_takes_the_group_along(stand_in: StandIn) -> None:
    pids: list[int] = []

    def on_progress(progress: Progress) -> None:
        pids.extend(map(int, progress.message.split()))
        raise KeyboardInterrupt

    process = StepProcess("train", {}, python=stand_in(IGNORE_SIGTERM_WITH_CHILD), grace_seconds=0.3)
    with pytest.raises(KeyboardInterrupt):
        process.run(on_progress=on_progress, on_chatter=print)
    assert len(pids) == 2
    assert_gone(pids)


def test_a_grandchild_that_holds_the_pipes_neither_blocks_nor_survives(stand_in: StandIn) -> None:
    python = stand_in("""
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
emit("result", value={"pid": child.pid})
""")
    value, _ = run(python)
    assert_gone([value["pid"]])


def test_kill_before_the_start_and_after_the_end_is_harmless(stand_in: StandIn) -> None:
    process = StepProcess("train", {}, python=stand_in("emit('result', value={})"))
    Heard().run(process)
    process.kill()
    never_started = StepProcess("train", {}, python=sys.executable)
    never_started.kill()


def test_a_partial_json_line_is_put_together(stand_in: StandIn) -> None:
    message = "m" * 200_000
    python = stand_in("emit('progress', fraction=1.0, message='m' * 200_000); emit('result', value={})")
    _, heard = run(python)
    assert heard.progress == [Progress("train", 1.0, message)]
    assert json.dumps(heard.chatter) == "[]"
