"""Every operator through the same checks."""

import ast
import inspect
import json
import textwrap
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from vae_ops.errors import StepFailedError
from vae_ops.settings import RunSettings
from vae_ops_provider import operators
from vae_ops_provider.operators import VaeStepOperator

StandIn = Callable[[str], str]

OPERATORS = [getattr(operators, name) for name in operators.__all__ if name != "VaeStepOperator"]
CONTEXT: Any = {"dag": SimpleNamespace(dag_id="d"), "run_id": "r"}

pytestmark = pytest.mark.parametrize("kind", OPERATORS, ids=lambda kind: kind.step)


def own_parameters(kind: type[VaeStepOperator]) -> dict[str, inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}
    for base in (VaeStepOperator, kind):
        found |= {n: p for n, p in inspect.signature(base.__init__).parameters.items() if n not in ("self", "kwargs")}
    return found


def make(kind: type[VaeStepOperator], **kwargs: Any) -> VaeStepOperator:
    return kind(task_id="t", source="in", output_dir="out", **kwargs)


def test_arguments_are_keyword_only(kind: type[VaeStepOperator]) -> None:
    assert {p.kind for p in own_parameters(kind).values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_every_argument_is_a_template_and_an_attribute(kind: type[VaeStepOperator]) -> None:
    assert set(kind.template_fields) == set(own_parameters(kind))
    task = make(kind)
    assert all(hasattr(task, name) for name in kind.template_fields)


def test_init_only_assigns(kind: type[VaeStepOperator]) -> None:
    for base in {VaeStepOperator, kind}:
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        init = [node for node in body.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
        for statement in init[0].body[1:] if init else []:
            assert isinstance(statement, ast.Assign), ast.unparse(statement)
            assert isinstance(statement.value, ast.Name), ast.unparse(statement)


def test_init_accepts_what_only_rendering_makes_sense_of(kind: type[VaeStepOperator]) -> None:
    template = "{{ params.anything }}"
    for name in own_parameters(kind):
        arguments = {"source": "in", "output_dir": "out", name: template}
        assert getattr(kind(task_id="t", **arguments), name) == template


def test_the_spec_survives_json(kind: type[VaeStepOperator]) -> None:
    settings = {"train": {"seed": 2**63 - 1}, "read": {"exclude": ["ü"], "semantic_types": {"a b": "categorical"}}}
    spec = make(kind, settings=settings).spec(CONTEXT)
    assert json.loads(json.dumps(spec)) == spec
    assert RunSettings.from_dict(spec["settings"]).read.exclude == ("ü",)


def test_the_step_is_the_operators_verb(kind: type[VaeStepOperator], stand_in: StandIn) -> None:
    assert kind.__name__ == f"Vae{kind.step.capitalize()}Operator"
    with pytest.raises(StepFailedError, match=f"Step '{kind.step}'"):
        make(kind, python=stand_in("sys.exit(1)")).execute(CONTEXT)


def test_on_kill_before_execute_is_harmless(kind: type[VaeStepOperator]) -> None:
    make(kind).on_kill()


def test_on_kill_takes_the_whole_group(kind: type[VaeStepOperator], stand_in: StandIn) -> None:
    started = threading.Event()
    pids: list[int] = []
    python = stand_in("""
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
emit("progress", fraction=0.5, message="-", values={"pids": [os.getpid(), child.pid]})
time.sleep(600)
""")

    class Store:
        def set(self, key: str, value: Any) -> None:
            pids.extend(value["values"]["pids"])
            started.set()

    def kill() -> None:
        started.wait(60)
        task.on_kill()

    task = make(kind, python=python)
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(StepFailedError, match="stopped from outside"):
        task.execute({**CONTEXT, "task_state_store": Store()})
    killer.join()
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=1)
    assert len(pids) == 2
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_the_docstring_tells_where_the_arguments_are_explained(kind: type[VaeStepOperator]) -> None:
    assert "VaeStepOperator" in (kind.__doc__ or "")
    assert all(f"{name}:" in (VaeStepOperator.__doc__ or "") + (kind.__doc__ or "") for name in own_parameters(kind))
