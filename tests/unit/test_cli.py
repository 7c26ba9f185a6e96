"""The command line: what it prints where, its exit codes, and what it imports before it has to."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from tests.stand_in_model import LENIENT as A_COPIER
from tests.stand_in_model import StandInModel, some_rows
from vae_ops.cli import commands
from vae_ops.progress import JsonLines, Progress, bar, log_lines
from vae_ops.storage import Location

LENIENT = tuple(part for name in A_COPIER["gate"] for part in ("--set", f"gate.{name}=off"))


@pytest.fixture(autouse=True)
def stand_in_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("walk", "standalone", "inspection"):
        monkeypatch.setattr(f"vae_ops.{room}.default_engine", lambda: StandInModel)


@pytest.fixture
def source(tmp_path: Path) -> str:
    pq.write_table(some_rows(), tmp_path / "source.parquet")
    return str(tmp_path / "source.parquet")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(commands, arguments)


def call_json(*arguments: str) -> dict[str, Any]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") == 1
    found: dict[str, Any] = json.loads(result.stdout)
    return found


# --- commands -------------------------------------------------------------------------------------------------------


def test_augment_prints_one_object(source: str, tmp_path: Path) -> None:
    found = call_json("augment", source, str(tmp_path / "out"), "--ratio", "0.25", "--seed", "1", *LENIENT)
    promised = {"snapshot_path", "report_path", "model_version", "verdict", "rows_source", "rows_synthetic", "seconds"}
    assert set(found) == promised | {"store", "model_path", "metrics", "run_id", "utility", "decision", "reason"}
    assert (found["rows_source"], found["rows_synthetic"]) == (400, 100)


def test_named_options_reach_the_settings(source: str, tmp_path: Path) -> None:
    arguments = (
        "--time-budget",
        "9",
        "--seed",
        "5",
        "--exclude",
        "kind",
        "--no-source",
        "--store",
        str(tmp_path / "s"),
    )
    found = call_json("augment", source, str(tmp_path / "out"), "--rows", "7", *arguments, *LENIENT)
    settings = json.loads(Path(found["snapshot_path"], "_manifest.json").read_text())["settings"]
    assert settings["train"]["time_budget_seconds"] == 9.0
    assert [settings[section]["seed"] for section in ("read", "train", "generate")] == [5, 5, 5]
    assert settings["read"]["exclude"] == ["kind"]
    assert settings["publish"]["include_source"] is False
    assert settings["generate"]["rows"] == 7
    assert found["store"] == str(tmp_path / "s")


def test_without_json_the_result_is_for_people_and_stdout_stays_empty(source: str, tmp_path: Path) -> None:
    result = call("augment", source, str(tmp_path / "out"), "--ratio", "auto", *LENIENT)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "verdict" in result.stderr
    assert "publish  100%" in result.stderr


def test_a_borderline_verdict_is_said_so(source: str, tmp_path: Path) -> None:
    limits = (*LENIENT, "--set", "gate.max_copy_excess_percent=60", "--set", "gate.borderline=4")
    result = call("augment", source, str(tmp_path / "out"), *limits)
    assert result.exit_code == 0
    assert "borderline: published, but look at the report" in result.stderr


def test_a_gate_that_says_no_exits_3_in_one_sentence(source: str, tmp_path: Path) -> None:
    result = call("augment", source, str(tmp_path / "out"), "--json")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("Error: The validation gate said no")


def test_profile_writes_nothing(source: str, tmp_path: Path) -> None:
    found = call_json("profile", source)
    assert (found["rows"], "sample" in found) == (400, False)
    assert "  count: numeric, int16, 0 null" in call("profile", source).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source.parquet"]


def test_train_and_generate(source: str, tmp_path: Path) -> None:
    trained = call_json("train", source, "--model", str(tmp_path / "model"))
    drawn = call_json(
        "generate", trained["model_path"], "--rows", "12", "--output", str(tmp_path / "rows"), "--seed", "3"
    )
    assert (drawn["rows"], drawn["seed"], drawn["model_version"]) == (12, 3, trained["model_version"])
    assert pq.read_table(drawn["output_path"]).num_rows == 12


def test_validate_says_yes_and_no(source: str, tmp_path: Path) -> None:
    pq.write_table(some_rows(seed=1), tmp_path / "other.parquet")
    report = ("--report", str(tmp_path / "report"))
    found = call_json("validate", source, str(tmp_path / "other.parquet"), *report)
    assert set(found) >= {"verdict", "metrics", "noise_floor", "report_path"}
    refused = call("validate", source, source, *report, "--json")
    assert refused.exit_code == 3
    assert json.loads(refused.stdout)["verdict"] == "fail"
    assert refused.stderr.startswith("Error: The validation gate said no")


def test_inspect_knows_all_that_vae_ops_makes(source: str, tmp_path: Path) -> None:
    made = call_json("augment", source, str(tmp_path / "out"), *LENIENT)
    assert call("augment", source, str(tmp_path / "out")).exit_code == 3
    (refused,) = Path(made["store"], "rejected").iterdir()
    kinds = {
        "output": str(tmp_path / "out"),
        "snapshot": made["snapshot_path"],
        "store": made["store"],
        "model": made["model_path"],
        "run": str(refused),
        "table": source,
    }
    assert {kind: call_json("inspect", path)["kind"] for kind, path in kinds.items()} == {kind: kind for kind in kinds}
    assert call("inspect", made["snapshot_path"]).stderr.startswith("kind")


def test_inspect_of_nothing_known(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in ("empty", "missing"):
        result = call("inspect", str(tmp_path / path))
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1


# --- settings on the command line -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.stesp=3", "did you mean 'steps'"),
        ("trian.steps=3", "did you mean 'train'"),
        ("train.steps", "SECTION.NAME=VALUE"),
        ("train=3", "SECTION.NAME=VALUE"),
        ("train.steps=many", "expects int"),
        ("train.steps=0", "at least 1"),
        ("generate.rows=1.5", "expects int"),
    ],
)
def test_settings_that_make_no_sense(source: str, tmp_path: Path, override: str, words: str) -> None:
    result = call("augment", source, str(tmp_path / "out"), "--set", override)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_rows_and_ratio_exclude_each_other(source: str, tmp_path: Path) -> None:
    result = call("augment", source, str(tmp_path / "out"), "--rows", "1", "--ratio", "1")
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize("arguments", [("augment",), ("augment", "a", "b", "--ratio", "some"), ("fly",)])
def test_wrong_usage_exits_2(arguments: tuple[str, ...]) -> None:
    assert call(*arguments).exit_code == 2


# --- a process of its own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("--help",), ("augment", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom vae_ops.cli import main\nsys.argv = ['vae-ops', *sys.argv[1:]]\n"
        "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert not set(done.stderr.split()) & {"numpy", "pyarrow", "pandas", "tensorflow", "rich"}


def test_a_defect_shows_its_traceback_and_exits_1(source: str, tmp_path: Path) -> None:
    code = (
        "import sys, vae_ops.steps\nfrom vae_ops.cli import main\n"
        "vae_ops.steps.augment = lambda *args, **kwargs: 1 / 0\nsys.argv = ['vae-ops', 'augment', 'a', 'b']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_full_disk_is_told_in_one_sentence(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_full(location: Location, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), location.path)

    monkeypatch.setattr(Location, "write_atomic", is_full)
    result = call("augment", source, str(tmp_path / "out"), *LENIENT)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert "No space left on device" in line
    assert str(tmp_path) in line


def test_what_libraries_print_stays_off_stdout() -> None:
    code = (
        "import os\nfrom vae_ops.progress import only_results_on_stdout\n"
        "with only_results_on_stdout() as stream:\n"
        "    print('chatter'); os.write(1, b'from C\\n'); stream.write('result\\n')\n"
        "print('after')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "result\nafter\n"
    assert set(done.stderr.split("\n")) >= {"chatter", "from C"}


# --- progress -------------------------------------------------------------------------------------------------------


class Sink:
    """Remembers what is written, as a terminal would show it."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_progress_is_thinned_out_but_for_the_ends_of_a_step() -> None:
    sink = Sink()
    lines = JsonLines(sink, every_seconds=3600.0)  # type: ignore[arg-type]
    for step in ("profile", "train"):
        for percent in range(101):
            lines.progress(Progress(step, percent / 100, "…", {"percent": percent}))
    events = [json.loads(line) for line in sink.text.splitlines()]
    assert [(event["step"], event["fraction"]) for event in events] == [
        ("profile", 0.0),
        ("profile", 1.0),
        ("train", 0.0),
        ("train", 1.0),
    ]


def test_log_lines_name_step_share_and_message() -> None:
    sink = Sink()
    log_lines(sink)(Progress("train", 0.42, "loss 12.3"))  # type: ignore[arg-type]
    assert sink.text == "train     42%  loss 12.3\n"


def test_the_bar_takes_messages_literally() -> None:
    sink = Sink()
    with bar(sink) as report:  # type: ignore[arg-type]
        report(Progress("publish", 1.0, "3 rows in /data/[red]x[/red]"))
    assert "[red]x[/red]" in sink.text
