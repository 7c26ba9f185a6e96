"""Walks in forked children, one fault each: `python -m tests.system.faults.worker`, JSON lines in and out.

Everything is imported once, so that hundreds of walks take minutes instead of an hour. A request is
`{"source", "output", "store", "steps", "settings", "fault"}`, or `{"first", "second"}` for two walks, of which the
first is stopped at its point until the second is done or waits for it. What is asked, and what the answers mean, is
decided in `night.py`.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow.parquet as pq

from tests.stand_in_model import LENIENT, StandInModel, some_rows
from tests.system.faults.acts import Clock, make_act
from tests.system.faults.points import Places, Touches, announcing_waits
from vae_ops import steps, walk
from vae_ops.errors import VaeOpsError
from vae_ops.progress import Progress
from vae_ops.records import StepSpec
from vae_ops.retention import gc as collect_garbage
from vae_ops.settings import RunSettings
from vae_ops.storage import locate
from vae_ops.store import Store

__all__ = ["RUN_ID"]

RUN_ID = "nightly"
# A walk takes a second or two, and some more on an object store; one that takes this long hangs.
_PATIENCE_SECONDS = 300

Request = Mapping[str, Any]


def suffer(request: Request, say: Callable[[Mapping[str, Any]], None]) -> None:
    """Does what is asked, in this process, and says what became of it; death says nothing."""
    signal.alarm(_PATIENCE_SECONDS)
    # The proxy of an object store has to know whom to kill; the name travels in each request's user agent.
    os.environ.update(request.get("environment", {}), AWS_SDK_UA_APP_ID=f"pid-{os.getpid()}")
    places = Places(request["source"], request["output"], request["store"])
    clock = Clock()
    fault = request.get("fault")
    act = make_act(fault, places, clock) if fault and "point" in fault else None
    touches = Touches(places, act or (lambda point: None))
    announcing_waits(lambda: say({"waits": True}))
    touches.watch()
    if fault and "seconds_ahead" in fault:
        clock.jump(fault["seconds_ahead"])
    error: dict[str, Any] | None = None
    try:
        with _short_files(fault):
            for step in request["steps"]:
                _do(step, request, touches)
    except Exception as raised:  # noqa: BLE001 - told to the harness, which judges it
        error = {"type": type(raised).__name__, "message": str(raised), "ours": isinstance(raised, VaeOpsError)}
        error["where"] = _where(raised)
    seen = [asdict(point) for point in touches.seen] if request.get("record") else []
    say({"error": error, "points": seen, "struck": bool(act and act.struck)})


def _where(raised: Exception) -> str:
    """The innermost function of the engine that an error came through."""
    frames = traceback.extract_tb(raised.__traceback__)
    own = [frame for frame in frames if os.sep + "vae_ops" + os.sep in frame.filename]
    return f"{os.path.basename(own[-1].filename)}, {own[-1].name}" if own else ""


def _do(step: str, request: Request, touches: Touches) -> None:
    touches.step = step

    def listen(progress: Progress) -> None:
        touches.reported(progress.step)

    settings = RunSettings.from_dict(request["settings"])
    if step == "augment":
        touches.step = "profile"
        steps.augment(
            request["source"],
            request["output"],
            store=request["store"],
            settings=settings,
            engine=StandInModel,
            report=listen,
        )
    elif step == "gc":
        _collect(request)
    else:
        spec = StepSpec(request["source"], request["store"], request["output"], RUN_ID, settings)
        getattr(steps, step)(spec, report=listen)


def _collect(request: Request) -> None:
    """Removes what nothing points at."""
    settings = RunSettings.from_dict(request["settings"])
    collect_garbage(Store(locate(request["store"])), keep=settings.publish.keep_snapshots)


@contextlib.contextmanager
def _short_files(fault: Mapping[str, Any] | None) -> Iterator[None]:
    """No file may grow beyond `file_bytes`; whoever tries dies in the middle of writing, or gets an error."""
    if not fault or "file_bytes" not in fault:
        yield
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fault["deadly"] else signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (fault["file_bytes"], most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


class _Child:
    """A forked walk and the pipe on which it speaks."""

    def __init__(self, request: Request) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(reading)
            _be_a_child(request, writing)
        os.close(writing)
        self._answers = os.fdopen(reading)

    def stopped(self) -> bool:
        """Waits until the child stops itself; False if it has ended instead."""
        found = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return found is not None and found.si_code == os.CLD_STOPPED

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def next_word(self) -> dict[str, Any]:
        """What the child says next: that it waits, or what became of it."""
        line = self._answers.readline()
        if line:
            word: dict[str, Any] = json.loads(line)
            return word
        return {}

    def end(self, word: Mapping[str, Any]) -> dict[str, Any]:
        """Reads on to the last word and adds the signal that the child died of, 0 for none."""
        last: dict[str, Any] = {"error": None, "points": [], "struck": False}
        while word:
            last.update(word)
            word = self.next_word()
        self._answers.close()
        _, status = os.waitpid(self.pid, 0)
        return {**last, "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}


def _be_a_child(request: Request, writing: int) -> None:
    def say(word: Mapping[str, Any]) -> None:
        data = memoryview(json.dumps(word).encode() + b"\n")
        while data:
            data = data[os.write(writing, data) :]

    try:
        suffer(request, say)
    finally:
        os._exit(0)


def answer(request: Request) -> Mapping[str, Any]:
    """One walk, or two at once."""
    if "first" not in request:
        child = _Child(request)
        return child.end(child.next_word())
    first = _Child(request["first"])
    stopped = first.stopped()
    second = _Child(request["second"])
    word = second.next_word()
    if stopped:
        first.go_on()
    return {"stopped": stopped, "second": second.end(word), "first": first.end(first.next_word())}


def import_what_a_walk_imports() -> None:
    """Walks once in a child and imports here what it has imported, so that later children find it there."""
    reading, writing = os.pipe()
    if not os.fork():
        with tempfile.TemporaryDirectory() as directory:
            source = os.path.join(directory, "source.parquet")
            pq.write_table(some_rows(60), source)
            steps.augment(source, os.path.join(directory, "out"), settings=RunSettings.from_dict(LENIENT))
        os.write(writing, " ".join(sys.modules).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        names = stream.read().split()
    os.wait()
    # A walk on an object store has more to import, and no store to try it on yet.
    for name in [*names, "s3fs", "aiobotocore.session", "aiobotocore.client"]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def main() -> None:
    """Answers requests until there are no more."""
    walk.default_engine = lambda: StandInModel  # type: ignore[assignment,return-value]
    import_what_a_walk_imports()
    # Nothing of what is loaded is garbage; looking for some in every child would copy it.
    gc.freeze()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
