"""The pages under docs/: their examples are parsed as Airflow would, their tables are compared with the code."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, AssetAlias

from vae_ops import records
from vae_ops.settings import GATE_PRESETS, GateSettings
from vae_ops_provider.approval import VaeApprovalOperator
from vae_ops_provider.operators import VaeStepOperator
from vae_ops_provider.params import augmentation_params
from vae_ops_provider.task_group import VaeAugmentation

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted((DOCS / "operators").glob("*.md")), DOCS / "partitions.md", DOCS / "trigger-form.md"]
STEPS = {kind.step: kind for kind in VaeStepOperator.__subclasses__()}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def first_cells(text: str) -> Iterator[str]:
    """Names in backquotes that begin the rows of tables."""
    for line in text.splitlines():
        if line.startswith("| `"):
            yield from re.findall(r"`(\w+)`", line.split("|")[1])


def section(page: str, title: str) -> str:
    return (DOCS / page).read_text("utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]


def parameters(kind: type[Any]) -> set[str]:
    return {name for name in inspect.signature(kind.__init__).parameters if name != "self"}


EXAMPLES = [(page.stem, number, code) for page in PAGES for number, code in enumerate(blocks(page, "python"))]


def dags_of(code: str, path: Path) -> list[DAG]:
    """The DAGs that a file makes when it is parsed."""
    made: list[DAG] = []
    with pytest.MonkeyPatch.context() as patch:
        leave = DAG.__exit__
        patch.setattr(DAG, "__exit__", lambda dag, *error: (made.append(dag), leave(dag, *error))[1])
        exec(compile(code, str(path), "exec"), {"__name__": path.stem, "__file__": str(path)})
    return made


@pytest.mark.parametrize(("page", "number", "code"), EXAMPLES, ids=lambda value: str(value)[:20])
def test_an_example_is_a_dag_that_airflow_takes(page: str, number: int, code: str, tmp_path: Path) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    made = dags_of(code, tmp_path / f"{page.replace('-', '_')}_{number}.py")
    assert made
    for dag in made:
        dag.validate()
        stored = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
        assert stored.task_dict.keys() == dag.task_dict.keys() != set()


def test_an_authors_file_is_ten_lines() -> None:
    first = blocks(DOCS / "operators" / "augmentation.md", "python")[0]
    assert len(first.splitlines()) <= 10


def test_there_is_a_page_for_each_operator() -> None:
    assert {page.stem for page in PAGES} >= {*STEPS, "approval", "augmentation"}


def test_every_argument_is_on_its_page() -> None:
    documented = set(first_cells(section("operators/augmentation.md", "Arguments")))
    assert documented == parameters(VaeAugmentation)
    assert set(first_cells(section("operators/profile.md", "Arguments of every operator"))) == (
        parameters(VaeStepOperator) - {"kwargs"}
    )
    for step, kind in STEPS.items():
        own = parameters(kind) - parameters(VaeStepOperator) if "__init__" in vars(kind) else set()
        assert step == "profile" or set(first_cells(section(f"operators/{step}.md", "Arguments"))) == own, step
    approval = set(first_cells(section("operators/approval.md", "Arguments")))
    assert approval >= parameters(VaeApprovalOperator) - {"kwargs"} | {"approval", "approval_timeout"}


def test_what_a_task_returns_is_on_its_page() -> None:
    kinds = {
        "profile": records.ProfileRecord, "train": records.TrainRecord, "generate": records.PartRecord,
        "validate": records.ValidateRecord, "publish": records.PublishRecord,
    }  # fmt: skip
    for step, record in kinds.items():
        returned = re.sub(r"\(.*?\)", "", section(f"operators/{step}.md", "Returns"))
        assert re.findall(r"`(\w+)`", returned)[: len(record.__dataclass_fields__)] == list(record.__dataclass_fields__)


def test_the_numbers_of_the_presets_are_those_of_the_code() -> None:
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]]
        for line in section("operators/validate.md", "Strictness").splitlines()
        if line.startswith("| `")
    ]
    for name, *shown in rows:
        limits = [getattr(GateSettings.from_dict({"strictness": p}), name) for p in ("strict", "standard", "lenient")]
        assert [float(cell) for cell in shown] == limits, name
    assert {row[0] for row in rows} == {name for preset in GATE_PRESETS.values() for name in preset}


def test_the_form_is_on_its_page() -> None:
    page = (DOCS / "trigger-form.md").read_text("utf-8")
    rows = [[cell.strip(" `") for cell in line.split("|")[1:3]] for line in page.splitlines() if line.startswith("| `")]
    params = augmentation_params(source="in", output="out")
    assert rows == [[name, param.schema.get("section", "")] for name, param in params.items()]


def structure(dag: DAG) -> str:
    """A DAG as docs/dags.md draws it."""
    schedule = f"alias {dag.schedule.name}" if isinstance(dag.schedule, AssetAlias) else str(dag.schedule)
    lines = [f"{dag.dag_id} on {schedule}"]
    for name, task in dag.task_dict.items():
        mapped = " (mapped)" if task.is_mapped else ""
        behind = " -> " + ", ".join(sorted(task.downstream_task_ids)) if task.downstream_task_ids else ""
        outlets = "".join(f" => alias {outlet.name}" for outlet in task.outlets)
        lines.append(f"  {name}{mapped}{behind}{outlets}")
    return "\n".join(lines) + "\n"


def test_the_structure_of_the_example_dags_is_on_their_page() -> None:
    drawn = [structure(dag) for path in sorted((ROOT / "dags").glob("*.py")) for dag in dags_of(path.read_text(), path)]
    assert drawn == blocks(DOCS / "dags.md", "text")
