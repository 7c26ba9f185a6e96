import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vae_ops.errors import OutOfMemoryError, SettingsError, StepFailedError
from vae_ops_provider import limits
from vae_ops_provider.limits import Limits, MemoryWatch, format_bytes, parse_cores, parse_memory
from vae_ops_provider.process import StepProcess

StandIn = Callable[[str], str]


def run(python: str, **bounds: Any) -> dict[str, Any]:
    process = StepProcess("train", {}, python=python, limits=Limits(**bounds))
    return process.run(on_progress=print, on_chatter=print)


@pytest.mark.parametrize(
    ("given", "bytes_"),
    [(None, None), ("", None), ("None", None), (5_000_000, 5_000_000), ("4GiB", 4 << 30), ("4Gi", 4 << 30),
     ("1.5 GB", 1_500_000_000), ("500m", 500_000_000), ("512 MiB", 512 << 20), ("1024", 1024), ("2T", 2 * 10**12)],
)  # fmt: skip
def test_memory_is_read_as_people_write_it(given: Any, bytes_: int | None) -> None:
    assert parse_memory(given, "memory_limit") == bytes_


@pytest.mark.parametrize("given", ["much", "-1GiB", 0, "0 GiB", "4 GiB!", "GiB", "4 PiB"])
def test_what_is_no_memory_is_refused(given: Any) -> None:
    with pytest.raises(SettingsError, match=r"memory_limit expects an amount of memory such as '4GiB'"):
        parse_memory(given, "memory_limit")


@pytest.mark.parametrize(("given", "cores"), [(None, None), ("None", None), (2, 2), (" 3 ", 3)])
def test_cores_are_whole_numbers(given: Any, cores: int | None) -> None:
    assert parse_cores(given, "cpu_limit") == cores


@pytest.mark.parametrize("given", [0, "1.5", "-1", "all"])
def test_other_cores_are_refused(given: Any) -> None:
    with pytest.raises(SettingsError, match="cpu_limit expects a whole number of processor cores"):
        parse_cores(given, "cpu_limit")


def test_memory_for_a_person() -> None:
    assert [format_bytes(200 << 20), format_bytes(3 << 29)] == ["200 MiB", "1.50 GiB"]


def test_more_memory_than_the_limit_ends_the_step_and_is_named(stand_in: StandIn) -> None:
    python = stand_in("held = b'x' * (300 << 20); emit('progress', message='holds'); time.sleep(600)")
    with pytest.raises(OutOfMemoryError, match=r"it held [23]\d\d MiB .* memory_limit of 200 MiB: raise memory_limit"):
        run(python, memory_bytes=200 << 20)


def test_memory_of_descendants_counts(stand_in: StandIn) -> None:
    python = stand_in("""
subprocess.run([sys.executable, "-c", "import time; held = b'x' * (300 << 20); time.sleep(600)"])
""")
    with pytest.raises(OutOfMemoryError, match="memory_limit of 200 MiB"):
        run(python, memory_bytes=200 << 20)


def test_less_memory_than_the_limit_is_nobodys_business(stand_in: StandIn) -> None:
    assert run(stand_in("emit('result', value={'rows': 1})"), memory_bytes=1 << 30) == {"rows": 1}


@pytest.mark.parametrize("kind", ["MemoryError", "_ArrayMemoryError", "ArrowMemoryError", "ResourceExhaustedError"])
def test_lack_of_memory_that_a_library_reports_is_named(stand_in: StandIn, kind: str) -> None:
    python = stand_in(f"emit('error', kind={kind!r}, message='no 8 GB', exit_code=1); sys.exit(1)")
    with pytest.raises(OutOfMemoryError, match=r"ran out of memory \(no 8 GB\): give the worker more memory"):
        run(python)


@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(137)"])
@pytest.mark.parametrize("kernel_counts", [True, False])
def test_a_sigkill_is_the_kernels_only_where_the_kernel_says_so(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, ending: str, kernel_counts: bool
) -> None:
    counts = iter([3, 4] if kernel_counts else [3, 3])
    monkeypatch.setattr(limits, "_oom_kills", lambda: next(counts))
    with pytest.raises(StepFailedError) as caught:
        run(stand_in(ending))
    assert (type(caught.value) is OutOfMemoryError) == kernel_counts
    said = "was killed by the kernel" if kernel_counts else "most often for lack of memory"
    assert said in str(caught.value)
    assert "lower read.max_training_rows" in str(caught.value)


def test_the_kernels_count_is_read_where_there_is_one() -> None:
    counters = Path("/proc/vmstat")
    if not (counters.exists() and "\noom_kill " in counters.read_text()):
        pytest.skip("this kernel does not count its kills for lack of memory")
    count = int(counters.read_text().partition("\noom_kill ")[2].split()[0])
    assert limits._oom_kills() >= count


def test_cores_bound_the_step_and_all_it_starts(stand_in: StandIn) -> None:
    python = stand_in("""
count = "import os; print(len(os.sched_getaffinity(0)))"
started = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True)
emit('result', value={'own': len(os.sched_getaffinity(0)), 'started': int(started.stdout)})
""")
    assert run(python, cores=1) == {"own": 1, "started": 1}
    every = len(os.sched_getaffinity(0))
    assert run(python, cores=every + 1) == {"own": every, "started": every}


def test_a_process_that_is_gone_holds_nothing_and_gets_no_cores() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    watch = MemoryWatch(process.pid, 1)
    watch.look()
    assert (watch.peak_bytes, watch.is_exceeded) == (0, False)
    Limits(cores=1).assign_cores(process.pid)
