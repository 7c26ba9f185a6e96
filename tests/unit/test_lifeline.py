"""A real step ends when the pipe it inherited does; that operators make such a pipe is tested in `tests/system`."""

import os
import signal
import subprocess
import sys

import pytest

from vae_ops.lifeline import LIFELINE_VARIABLE

COMMAND = [sys.executable, "-m", "vae_ops.steps", "profile", "-"]
WITH_A_CHILD = """
import subprocess, sys, time
from vae_ops.lifeline import hold_lifeline
hold_lifeline()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
THREADS = """
import os, threading
from vae_ops.lifeline import LIFELINE_VARIABLE, hold_lifeline
hold_lifeline()
print(*(thread.name for thread in threading.enumerate()), os.environ.get(LIFELINE_VARIABLE))
"""


def test_a_step_ends_with_the_pipe_even_before_it_has_its_spec() -> None:
    lifeline, ours = os.pipe()
    environment = {**os.environ, LIFELINE_VARIABLE: str(lifeline)}
    with subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, pass_fds=[lifeline],
        start_new_session=True,
    ) as step:  # fmt: skip
        os.close(lifeline)
        with pytest.raises(subprocess.TimeoutExpired):
            step.wait(timeout=1)
        os.close(ours)
        assert step.wait(timeout=30) == -signal.SIGKILL


def test_the_whole_group_ends_with_the_pipe() -> None:
    lifeline, ours = os.pipe()
    environment = {**os.environ, LIFELINE_VARIABLE: str(lifeline)}
    with subprocess.Popen(
        [sys.executable, "-c", WITH_A_CHILD], stdout=subprocess.PIPE, env=environment, pass_fds=[lifeline],
        start_new_session=True,
    ) as step:  # fmt: skip
        os.close(lifeline)
        assert step.stdout is not None
        assert step.stdout.readline()
        os.close(ours)
        # The child of the step holds its stdout too, so the end of the pipe is the end of both.
        assert step.stdout.read() == b""
        assert step.wait(timeout=30) == -signal.SIGKILL


@pytest.mark.parametrize("value", [None, "", "no number", "0", "999"])
def test_a_step_without_a_pipe_lives_on(value: str | None) -> None:
    environment = {name: text for name, text in os.environ.items() if name != LIFELINE_VARIABLE}
    if value is not None:
        environment[LIFELINE_VARIABLE] = value
    done = subprocess.run(
        [sys.executable, "-c", THREADS], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == ["MainThread", "None"], done.stderr
