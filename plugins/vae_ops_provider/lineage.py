"""What a task read and wrote, as OpenLineage datasets and facets.

Airflow's OpenLineage provider asks the operators for it, where that provider is installed; without it nothing imports
this module. Everything comes from the run's own files: schema and counts from its profile, the findings of the gate
from its report, columns and rows from the snapshot's manifest. Values of the table appear nowhere.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import (
    column_lineage_dataset,
    data_quality_assertions_dataset,
    data_quality_metrics_input_dataset,
    dataset_version_dataset,
    output_statistics_output_dataset,
    schema_dataset,
)

from vae_ops.storage import Location, has_wildcard, locate
from vae_ops.store import Output, Store
from vae_ops.synthetic_marks import SYNTHETIC_COLUMN
from vae_ops_provider.connections import use_connections

__all__ = ["dataset_name", "lineage_of"]

# A run's artifacts are versions of two lasting datasets, the models and the staged rows: a name for each run would fill
# the lineage with places that are gone the next day.
_READ = {
    "profile": ("source",),
    "train": ("source",),
    "generate": ("models",),
    "validate": ("source", "runs"),
    "publish": ("source", "runs"),
}
_WRITTEN = {"train": "models", "generate": "runs", "publish": "output"}
_VERSION_OF = {"models": "model_version", "output": "snapshot_path"}


def lineage_of(step: str, spec: Mapping[str, Any], record: Mapping[str, Any] | None) -> "OperatorLineage[Any, Any]":
    """What one step read and wrote.

    Args:
        step: Verb of `vae_ops.steps`.
        spec: What the step was told.
        record: What it returned; None where it failed, and then only what it read is known.
    """
    use_connections(*(uri for uri in (spec["source"], spec["output"], spec["store"]) if uri))
    places = _places(spec)
    inputs = {name: InputDataset(*dataset_name(places[name])) for name in _READ[step]}
    if record is None:
        return OperatorLineage(inputs=list(inputs.values()))
    if "runs" in inputs:
        inputs["runs"].facets = {**_version(spec["run_id"])}
    if step == "profile":
        _describe_source(inputs["source"], locate(record["profile_path"]).read_json())
    if step == "validate":
        report = Store(places["store"]).run(spec["run_id"]).report.read_json()
        inputs["runs"].inputFacets = {"dataQualityAssertions": _assertions(report["findings"])}
    outputs = [_written(step, places, spec, record)] if step in _WRITTEN else []
    return OperatorLineage(inputs=list(inputs.values()), outputs=outputs)


def dataset_name(place: Location) -> tuple[str, str]:
    """OpenLineage's namespace and name of a place: `s3://bucket` and a key, or `file` and a path; no connection."""
    path = _fixed_part(place.path)
    if place.is_local:
        return "file", path
    scheme, _, rest = place.uri.partition("://")
    authority, _, key = rest.partition("/")
    namespace = f"{'s3' if scheme in ('s3a', 's3n') else scheme}://{authority.rpartition('@')[2]}"
    return namespace, _fixed_part(key) or "/"


def _places(spec: Mapping[str, Any]) -> dict[str, Location]:
    output = Output(locate(spec["output"]))
    store = Store(locate(spec["store"]) if spec["store"] else output.default_store)
    return {
        "source": locate(spec["source"]),
        "output": output.root,
        "store": store.root,
        "models": store.models,
        "runs": store.runs,
    }


def _fixed_part(path: str) -> str:
    """The path up to its first pattern."""
    parts = PurePosixPath(path).parts
    fixed = next((depth for depth, part in enumerate(parts) if has_wildcard(part)), len(parts))
    return str(PurePosixPath(*parts[:fixed])) if fixed else ""


def _written(
    step: str, places: Mapping[str, Location], spec: Mapping[str, Any], record: Mapping[str, Any]
) -> OutputDataset:
    name = _WRITTEN[step]
    version = record[_VERSION_OF[name]] if name in _VERSION_OF else spec["run_id"]
    dataset = OutputDataset(*dataset_name(places[name]), facets=_version(PurePosixPath(version).name))
    if step == "generate":
        dataset.outputFacets = {"outputStatistics": _statistics(rows=record["rows"], files=1)}
    if step == "publish":
        _describe_snapshot(
            dataset, dataset_name(places["source"]), Output.manifest(locate(record["snapshot_path"])).read_json()
        )
    return dataset


def _version(version: str) -> dict[str, Any]:
    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=version)}


def _describe_source(dataset: InputDataset, profile: Mapping[str, Any]) -> None:
    metrics = data_quality_metrics_input_dataset
    columns = {
        column["name"]: metrics.ColumnMetrics(nullCount=column["nulls"], distinctCount=column["distinct"])
        for column in profile["columns"]
    }
    dataset.facets = {"schema": _schema(profile["columns"])}
    dataset.inputFacets = {
        "dataQualityMetrics": metrics.DataQualityMetricsInputDatasetFacet(
            rowCount=profile["rows"], columnMetrics=columns
        )
    }


def _describe_snapshot(dataset: OutputDataset, source: tuple[str, str], manifest: Mapping[str, Any]) -> None:
    files = manifest["files"]
    rows = manifest["rows_source"] + manifest["rows_synthetic"]
    columns = _column_lineage(source, manifest)
    dataset.facets = {**(dataset.facets or {}), "schema": _schema(manifest["schema"]), "columnLineage": columns}
    size = sum(file["bytes"] for file in files)
    dataset.outputFacets = {"outputStatistics": _statistics(rows=rows, files=len(files), size=size)}


def _schema(columns: list[Mapping[str, Any]]) -> schema_dataset.SchemaDatasetFacet:
    fields = [schema_dataset.SchemaDatasetFacetFields(name=c["name"], type=c["type"]) for c in columns]
    return schema_dataset.SchemaDatasetFacet(fields=fields)


def _statistics(
    *, rows: int, files: int, size: int | None = None
) -> output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet:
    kind = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
    return kind(rowCount=rows, fileCount=files, size=size)


def _column_lineage(
    source: tuple[str, str], manifest: Mapping[str, Any]
) -> column_lineage_dataset.ColumnLineageDatasetFacet:
    """Source rows are copied, synthetic ones drawn; which is which stands in a column that has no origin."""
    lineage, how = column_lineage_dataset, []
    if manifest["settings"]["publish"]["include_source"]:
        how.append(lineage.Transformation(type="DIRECT", subtype="IDENTITY", description="Rows of the source."))
    how.append(
        lineage.Transformation(
            type="DIRECT", subtype="TRANSFORMATION", description="Rows drawn from a model of the table.", masking=True
        )
    )
    origin = [c["name"] for c in manifest["schema"] if c["name"] != SYNTHETIC_COLUMN]
    fields = {
        name: lineage.Fields(inputFields=[lineage.InputField(*source, name, transformations=how)]) for name in origin
    }
    return lineage.ColumnLineageDatasetFacet(fields=fields)


def _assertions(
    findings: list[Mapping[str, Any]],
) -> data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet:
    """Every judged metric; `error` stops the publish, `warn` is borderline."""
    kinds = data_quality_assertions_dataset
    return kinds.DataQualityAssertionsDatasetFacet(
        assertions=[
            kinds.Assertion(
                assertion=finding["metric"],
                success=finding["verdict"] == "pass",
                severity="warn" if finding["verdict"] == "borderline" else "error",
                description=finding["sentence"],
                expected=f"at most {finding['limit']:g}",
                actual=f"{finding['value']:g}",
            )
            for finding in findings
        ]
    )
