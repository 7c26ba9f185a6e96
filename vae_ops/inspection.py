"""Says what lies at a path: a model, a snapshot, an output, a run, or a Parquet table.

The names that give each kind away come from `store.py`; nothing is changed and no model is run.
"""

from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from typing import Any

from vae_ops.errors import SourceError, VaeOpsError
from vae_ops.publishing import load_latest
from vae_ops.registry import Registry
from vae_ops.storage import Location, locate
from vae_ops.store import Output, Run, Store, Version
from vae_ops.table import open_source
from vae_ops.walk import Engine, default_engine, path_of

__all__ = ["describe"]


def describe(path: "str | PathLike[str]", *, engine: Engine | None = None) -> dict[str, Any]:
    """Facts about whatever lies at the path; `kind` says what it is.

    Raises:
        SourceError: Nothing is there that vae-ops or Parquet knows.
    """
    place = locate(path)
    if Output(place).latest.exists():
        return _describe_output(Output(place), path)
    if Output.manifest(place).exists():
        return {"kind": "snapshot", "path": place.uri, **_without(Output.manifest(place).read_json(), "schema")}
    if Store(place).lines() or place.child("runs").is_dir():
        return _describe_store(Store(place))
    if Run(place, place.name).state.exists():
        return _describe_run(Run(place, place.name))
    if Version(place).lineage.exists() and not Version(place).manifest.exists():
        lineage = _lineage(Registry(Store(place.parent.parent)), place.name)
        return {"kind": "lineage of a model that is gone", "path": place.uri, "lineage": lineage}
    if place.is_dir() and not any(name.endswith(".parquet") for name in place.list()):
        return _describe_model(place, engine or default_engine())
    return _describe_table(path)


def _describe_output(output: Output, path: "str | PathLike[str]") -> dict[str, Any]:
    snapshots = [name for name in output.snapshots.list() if Output.manifest(output.snapshot(name)).exists()]
    return {"kind": "output", "path": output.root.uri, "snapshots": snapshots, "latest": asdict(load_latest(path))}


def _describe_store(store: Store) -> dict[str, Any]:
    champions = {store.fed_by(line): _describe_champion(Registry(store, line)) for line in store.lines()}
    outputs = [output.root.uri for output in store.outputs()]
    kinds = {kind: _visible(place) for kind, place in {"runs": store.runs, "rejected": store.rejected}.items()}
    facts = {"kind": "store", "path": store.root.uri, "champions": champions, "models": store.versions()}
    return {**facts, **kinds, "outputs": outputs}


def _describe_champion(registry: Registry) -> dict[str, Any] | None:
    """The model in force for one output; None if its files are gone."""
    champion = registry.champion()
    if champion is None:
        return None
    failed = champion.failure and asdict(champion.failure)
    lineage = _lineage(registry, champion.version)
    return {"version": champion.version, "lineage": lineage, "failed_challenger": failed}


def _lineage(registry: Registry, version: str) -> list[dict[str, Any]]:
    """A version and its parents, without what is long."""
    return [_without(asdict(link), "watermark") for link in registry.lineage_of(version)]


def _visible(directory: Location) -> list[str]:
    return [name for name in directory.list() if not name.startswith(".")]


def _describe_run(run: Run) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": "run", "path": run.root.uri, **run.state.read_json()}
    for name, record in {"train": run.trained, "verdict": run.verdict, "publish": run.published}.items():
        if record.exists():
            facts[name] = _without(record.read_json(), "columns", "parts")
    return facts


def _describe_model(place: Location, engine: Engine) -> dict[str, Any]:
    try:
        model = engine.load(path_of(place))
    except VaeOpsError as error:
        raise SourceError(
            f"Expected a model, a snapshot, an output, a run or a Parquet table at {place.uri!r}, found none: {error}"
        ) from error
    columns = {field.name: str(field.type) for field in model.schema}
    training = {name: value for name, value in model.training_record.items() if isinstance(value, str | int | float)}
    lineage = _lineage(Registry(Store(place.parent.parent)), place.name)
    facts = {"version": model.version, "columns": columns, "training": training, "lineage": lineage}
    return {"kind": "model", "path": place.uri, **facts}


def _describe_table(path: "str | PathLike[str]") -> dict[str, Any]:
    table = open_source(path, synthetic="keep", min_rows=0)
    columns = {field.name: str(field.type) for field in table.schema}
    facts = {"rows": table.num_rows, "files": len(table.files), "fingerprint": table.fingerprint(), "columns": columns}
    return {"kind": "table", "path": table.uri, **facts}


def _without(facts: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in names}
