"""A step does not outlive whoever waits for it: an inherited pipe whose end means that nobody does any more.

The waiting process holds the other end, so the kernel closes it however that process ends, SIGKILL included. A pipe and
not `PR_SET_PDEATHSIG`: that signal reaches the direct child alone, and a wrapper named by `python=` may stand between;
it follows the thread that forked instead of its process, and exists on Linux only. `steps.py` holds on to the pipe; the
Airflow layer's `process.py` makes it.
"""

import os
import signal
import stat
import threading

__all__ = ["LIFELINE_VARIABLE", "hold_lifeline"]

LIFELINE_VARIABLE = "VAE_OPS_LIFELINE"
"""Environment variable that holds the number of the inherited descriptor."""


def hold_lifeline() -> None:
    """Ends this process's whole group by SIGKILL as soon as the lifeline is let go; without one, does nothing."""
    number = os.environ.pop(LIFELINE_VARIABLE, "")
    if number.isdecimal() and _is_pipe(int(number)):
        threading.Thread(target=_end_with, args=(int(number),), name="lifeline", daemon=True).start()


def _is_pipe(descriptor: int) -> bool:
    # A wrapper between us and whoever waits may have closed it, and the number may stand for something else by now.
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _end_with(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    # Not a gentler signal: the same may have come over the waiting process for lack of memory, and what a step leaves
    # behind when it is killed is made for exactly that.
    os.killpg(0, signal.SIGKILL)
