"""The walk, one function a verb: profile, train, generate, validate, publish; `augment` walks all five in one process.

A step loads artifacts, calls pure code, saves artifacts whole or not at all, and returns a small record; doing it again
gives the same again. Names on disk come from `store.py`, snapshots from `publishing.py`, models from `vae.py`, verdicts
from `validation/`. Airflow's operators run `python -m vae_ops.steps STEP SPEC.json`, which speaks JSON lines
(`progress.py`); people use `cli.py`.
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vae_ops.errors import BundleError, GateRefusedError, InputError, StorageError, UsageError, VaeOpsError
from vae_ops.lifeline import hold_lifeline
from vae_ops.profiling import Profile, profile_source
from vae_ops.progress import JsonLines, Report, only_results_on_stdout
from vae_ops.publishing import (
    Provenance,
    commit_snapshot,
    digest_file,
    part_provenance,
    point_to,
    published_schema,
    read_rows,
    stage_snapshot,
    write_parquet,
    write_rows,
)
from vae_ops.records import (
    AugmentResult,
    PartRecord,
    ProfileRecord,
    PublishRecord,
    StepSpec,
    TrainRecord,
    ValidateRecord,
)
from vae_ops.registry import Lineage
from vae_ops.retention import gc
from vae_ops.schema import check_overrides, infer_semantic_types
from vae_ops.selection import Night, Selection, rehearsal_of
from vae_ops.settings import RunSettings
from vae_ops.storage import Location, check_apart, check_writable, locate, use_storage_options
from vae_ops.store import CLI_PREFIX, Output, Store, leaving_no_trace
from vae_ops.table import SourceLike, SourceTable, open_source
from vae_ops.walk import (
    Engine,
    Model,
    Walk,
    another_seed,
    path_of,
    recipe_of,
    record_of,
    together,
    training_facts,
)

if TYPE_CHECKING:
    from vae_ops.validation.evidence import UtilityEvidence, Validation

__all__ = [
    "StepSpec",
    "augment",
    "generate",
    "profile",
    "publish",
    "train",
    "validate",
]


# --- profile -----------------------------------------------------------------------------------------------------


def profile(spec: StepSpec, *, report: Report | None = None) -> ProfileRecord:
    """Profiles the source in one streaming pass and refuses what cannot be learned, before anything is written.

    Raises:
        InputError: The source is missing, unreadable or cannot be learned from.
        OutputError: The store or output cannot be written, or lies inside the source.
    """
    walk = Walk(spec, report=report)
    found = _examine(walk)
    Night(walk, found).check_not_broken()
    with walk.at_work("profile"):
        return _save_profile(walk, found)


def _examine(walk: Walk) -> Profile:
    """Everything that may refuse a run before it leaves a trace."""
    walk.tell("profile", 0.0, "reading the source")
    for place in [walk.store.root, *([walk.output.root] if walk.output else [])]:
        if walk.source.uri is not None:
            check_apart(locate(walk.source.uri), place)
        check_writable(place)
    check_overrides(walk.source.schema, walk.settings.read.semantic_types)
    if walk.settings.utility.target is not None:
        from vae_ops.validation.target import check_target

        check_target(walk.source.schema, walk.settings.utility)
    return profile_source(walk.source)


def _save_profile(walk: Walk, found: Profile) -> ProfileRecord:
    walk.run.profile.write_json(found.to_dict())
    columns = len(walk.source.schema)
    walk.tell("profile", 1.0, f"{found.rows:,} rows, {columns} columns", rows=found.rows, columns=columns)
    return ProfileRecord(walk.run.profile.uri, found.rows, columns, found.fingerprint, walk.spec.run_id)


# --- train -------------------------------------------------------------------------------------------------------


def train(spec: StepSpec, *, report: Report | None = None) -> TrainRecord:
    """Trains the run's candidate model.

    Raises:
        UsageError: The run has not been profiled.
        InputError: The source has changed since, or cannot be learned from.
    """
    walk = Walk(spec, report=report)
    with walk.at_work("train"):
        return _train(walk)


def _train(walk: Walk) -> TrainRecord:
    begin = time.monotonic()
    run = walk.run
    walk.check_unchanged(walk.source)
    walk.tell("train", 0.0, "preparing")
    night = Night(walk, walk.profile)
    chosen = night.select()
    for stale in (run.trained, run.utility, run.candidate):
        stale.remove()
    write_rows(run.root, run.training.name, chosen.rows.training)
    write_rows(run.root, run.holdout.name, chosen.rows.holdout)
    version = _save_choice(walk, night, chosen)
    record = _train_record(walk, chosen, version, seconds=time.monotonic() - begin)
    done = f"{record.decision}, {record.steps:,} steps in {record.seconds:.0f} s"
    if walk.settings.picks_dose:
        walk.tell("train", 0.99, f"{done}; measuring which dose of synthetic rows helps")
        rows = chosen.rows
        done = f"{done}; {_finding_of(_measure_utility(walk, chosen.model, rows.training, rows.holdout))}"
    run.trained.write_json(record.to_dict())
    walk.tell("train", 1.0, done, steps=record.steps)
    return record


def _save_choice(walk: Walk, night: Night, chosen: Selection) -> str:
    """Saves a new model and all that is kept beside it; the version of the chosen model."""
    run, decision = walk.run, chosen.decision
    version = chosen.model.save(path_of(run.candidate)) if chosen.is_new else chosen.model.version
    if chosen.is_new:
        run.reference.write_json(night.reference(chosen).to_dict())
        run.lineage.write_json(dataclasses.asdict(night.lineage(chosen, version)))
    elif chosen.trial is not None and decision.kind != "reuse":
        walk.registry.note_failed(run, decision=decision.kind, reason=chosen.trial.sentence)
    run.decision.write_json(dataclasses.asdict(night.evidence(chosen, version)))
    return version


def _train_record(walk: Walk, chosen: Selection, version: str, *, seconds: float) -> TrainRecord:
    why = "reuse" if chosen.decision.kind == "reuse" else "trial"
    nothing = {"steps": 0, "stopped_by": why, "rows_trained": 0, "sampled": chosen.rows.sampled}
    return TrainRecord(
        model_path=walk.bundle(version).uri,
        model_version=version,
        decision=chosen.decision.kind,
        reason=chosen.decision.reason,
        is_new=chosen.is_new,
        seconds=round(seconds, 3),
        **(training_facts(chosen.model, chosen.rows) if chosen.is_new else nothing),
    )


def _measure_utility(walk: Walk, model: Model, training: pa.Table, holdout: pa.Table) -> "UtilityEvidence":
    """Measures what rows of the model are worth for the target, on rows that are drawn for this and not published."""
    from vae_ops.validation.utility import measure_utility, synthetic_rows_wanted

    settings, seed = walk.settings.utility, walk.settings.generate.seed
    semantic_types = infer_semantic_types(training, walk.settings.read.semantic_types)
    rows = synthetic_rows_wanted(training, semantic_types, settings)
    drawn = together(model, model.sample_shard(rows, seed=another_seed(seed)))
    evidence = measure_utility(training, holdout, drawn, semantic_types, settings, seed=seed)
    walk.run.utility.write_json(dataclasses.asdict(evidence))
    return evidence


def _finding_of(evidence: "UtilityEvidence") -> str:
    return evidence.dose_curve.reason if evidence.dose_curve else evidence.not_measured


# --- generate ----------------------------------------------------------------------------------------------------


def generate(spec: StepSpec, *, report: Report | None = None) -> PartRecord:
    """Draws one shard of the synthetic rows into a staged Parquet part, in exactly the source's schema.

    Raises:
        UsageError: The run has no model.
        BundleError: The model is not what was saved.
    """
    walk = Walk(spec, report=report)
    with walk.at_work("generate"):
        return _generate(walk)


def _generate(walk: Walk) -> PartRecord:
    spec, run = walk.spec, walk.run
    model = _load_model(walk)
    rows = walk.rows_to_draw
    # The parts of an earlier try in another number of shards must not be mistaken for this run's. Hidden names
    # are parts in the making, which other shards draw side by side with this one.
    for name in run.parts.list():
        if not name.startswith(".") and not name.endswith(f"-of-{spec.shards:05d}.parquet"):
            run.parts.child(name).remove()
    part = run.part(spec.shard, spec.shards)
    tables = model.sample_shard(rows, seed=walk.settings.generate.seed, shard=spec.shard, shards=spec.shards)
    batches = _counted(walk, tables, -(-rows // spec.shards))
    written = write_parquet(run.parts, part.name, model.schema, batches, _provenance(walk))
    walk.tell("generate", 1.0, f"{written:,} rows", rows=written)
    return PartRecord(part.uri, written, spec.shard, spec.shards)


def _load_model(walk: Walk) -> Model:
    version = walk.trained.model_version
    location = walk.bundle(version)
    model = walk.engine.load(path_of(location))
    if model.version != version:
        raise BundleError(
            f"Run {walk.spec.run_id!r} trained model {version}, but {location.uri} holds {model.version}: run its "
            "train step again."
        )
    return model


def _counted(walk: Walk, tables: Iterator[pa.Table], expected: int) -> Iterator[pa.RecordBatch]:
    done = 0
    walk.tell("generate", 0.0, _amount(walk))
    for table in tables:
        yield from table.to_batches()
        done += table.num_rows
        walk.tell("generate", 0.99 * done / max(expected, 1), f"{done:,} rows", rows=done)


def _amount(walk: Walk) -> str:
    rows, settings = f"drawing {walk.rows_to_draw:,} rows", walk.settings
    if settings.picks_dose:
        return f"{rows}, as the dose curve says"
    if settings.generate.ratio == "auto" and settings.generate.rows is None:
        return f"{rows}: without a target, auto means one synthetic row per source row"
    return rows


def _provenance(walk: Walk) -> Provenance:
    return Provenance(
        model_version=walk.trained.model_version,
        seed=walk.settings.generate.seed,
        source_fingerprint=walk.profile.fingerprint,
        recipe=walk.recipe,
        partition=walk.spec.partition or "",
    )


# --- validate ----------------------------------------------------------------------------------------------------


def validate(spec: StepSpec, *, report: Report | None = None) -> ValidateRecord:
    """Judges the synthetic parts of a run; the verdict may be `fail`, which is a result and no error.

    Raises:
        UsageError: The run has no model, or not all of its parts.
    """
    walk = Walk(spec, report=report)
    with walk.at_work("validate"):
        return _validate(walk)


def _validate(walk: Walk) -> ValidateRecord:
    from vae_ops.validation.report import render_report

    run = walk.run
    parts = _whole_set_of_parts(walk)
    found = _judge(walk, parts)
    about = {"model_version": walk.trained.model_version, "run_id": walk.spec.run_id}
    run.report.write_json({**found.to_dict(), **about, "training": walk.trained.to_dict()})
    run.page.write_atomic(render_report(found).encode())
    record = record_of(found, run.page)
    digests = {part.name: digest_file(part) for part in parts}
    run.verdict.write_json({**record.to_dict(), **about, "parts": digests})
    walk.tell("validate", 1.0, f"verdict: {found.verdict}")
    return record


def _judge(walk: Walk, parts: list[Location]) -> "Validation":
    from vae_ops.validation.gate import judge
    from vae_ops.validation.succession import RefreshEvidence

    settings, read = walk.settings, walk.settings.read
    training, holdout = (_rows_left(walk, location) for location in (walk.run.training, walk.run.holdout))
    model = _load_model(walk)
    utility = _utility(walk, model, training, holdout)
    walk.tell("validate", 0.1, "encoding source rows and decoding them again")
    some = open_source(training, min_rows=1).sample(settings.gate.sample_rows, read.seed, to_learn=False)
    rebuilt = model.reconstruct(some, seed=another_seed(settings.generate.seed))
    walk.tell("validate", 0.2, "comparing with the source")
    found = judge(
        training,
        holdout,
        _rows_of(parts, training.schema).sample(read.max_training_rows, read.seed, to_learn=False),
        settings.gate,
        seed=settings.generate.seed,
        semantic_types=infer_semantic_types(training, read.semantic_types),
        reconstructed=(some, rebuilt),
        training_record=model.training_record,
        utility=utility,
        utility_settings=settings.utility,
        provenance=_account(walk),
    )
    # Judged is a sample of a large table, and the record says of how large a one.
    drawn = {"rows_source": walk.profile.rows, "rows_drawn": walk.rows_to_draw}
    refresh = RefreshEvidence.from_dict(walk.read_json(walk.run.decision, "train"))
    return dataclasses.replace(found, sizes={**found.sizes, **drawn}, refresh=refresh)


def _rows_left(walk: Walk, location: Location) -> pa.Table:
    """Rows that the train step left, which go when the run is published."""
    if not location.exists():
        raise UsageError(f"Run {walk.spec.run_id!r} has no {location.name} any more: run its train step again.")
    return read_rows(location)


def _account(walk: Walk) -> dict[str, str]:
    """What the report says about where the rows come from."""
    return {
        "source": walk.spec.source,
        "run_id": walk.spec.run_id,
        **{name: str(value) for name, value in dataclasses.asdict(_provenance(walk)).items()},
        "training": json.dumps(walk.trained.to_dict()),
        "labels": json.dumps(dict(walk.spec.labels)),
        "settings": json.dumps(walk.settings.to_dict()),
    }


def _utility(walk: Walk, model: Model, training: pa.Table, holdout: pa.Table) -> "UtilityEvidence | None":
    """What was measured to pick the dose, or is measured now where the number of rows was given."""
    if walk.settings.utility.target is None:
        return None
    if walk.settings.picks_dose:
        return walk.utility
    walk.tell("validate", 0.0, "learning the target from synthetic and from real rows")
    return _measure_utility(walk, model, training, holdout)


def _whole_set_of_parts(walk: Walk) -> list[Location]:
    """All parts of the run, each drawn by the run's own model."""
    names = [name for name in walk.run.parts.list() if not name.startswith(".")]
    shards = int(names[0].removesuffix(".parquet").rpartition("-")[2]) if names else walk.spec.shards
    parts = [walk.run.part(shard, shards) for shard in range(shards)]
    for part in parts:
        if part.name not in names:
            raise UsageError(f"Run {walk.spec.run_id!r} lacks {part.name}: run its generate step for that shard.")
        if not _same_draw(part_provenance(part), _provenance(walk)):
            raise UsageError(f"{part.uri} comes from another model or seed: run the generate step again.")
    return parts


def _same_draw(found: Provenance, wanted: Provenance) -> bool:
    """Whether a part holds what the run would draw now; the recipe may differ, as the gate's limits are part of it."""
    return dataclasses.replace(found, recipe=wanted.recipe) == wanted


def _rows_of(parts: list[Location], schema: pa.Schema) -> SourceTable:
    import pyarrow.dataset as ds  # takes a second, as it imports pandas

    paths, filesystem = [part.path for part in parts], parts[0].arrow_filesystem()
    dataset = ds.dataset(paths, schema=schema, filesystem=filesystem, format="parquet")
    return open_source(dataset, synthetic="keep", min_rows=0)


# --- publish -----------------------------------------------------------------------------------------------------


def publish(spec: StepSpec, *, report: Report | None = None) -> PublishRecord:
    """Publishes the parts that the gate let through as a snapshot, and makes their model the champion.

    Raises:
        GateRefusedError: The verdict is `fail`.
        UsageError: The run has not been validated, or its parts are not the ones that were.
        SourceError: The source has changed since it was profiled.
    """
    walk = Walk(spec, report=report)
    with walk.at_work("publish"):
        record = _publish(walk)
        walk.run.drop_bulk()
    gc(walk.store, keep=walk.settings.publish.keep_snapshots, but=spec.run_id)
    return record


def _publish(walk: Walk) -> PublishRecord:
    verdict = walk.read_json(walk.run.verdict, "validate")
    if verdict["verdict"] == "fail":
        raise GateRefusedError(_refusal(verdict["reasons"], walk.run.root))
    if walk.run.published.exists() and not all(walk.run.parts.child(name).exists() for name in verdict["parts"]):
        return _publish_again(walk)
    parts = _whole_set_of_parts(walk)
    if {part.name: digest_file(part) for part in parts} != verdict["parts"]:
        raise UsageError(
            f"The parts of run {walk.spec.run_id!r} were drawn anew since the verdict: validate them first."
        )
    record = _commit(walk, parts, verdict)
    if walk.trained.is_new:
        objection = walk.registry.promote(walk.run, record.model_version, keep=walk.settings.publish.keep_snapshots)
        if objection:
            walk.tell("publish", 0.99, objection)
    walk.run.published.write_json(record.to_dict())
    rows = record.rows_source + record.rows_synthetic
    walk.tell("publish", 1.0, f"{rows:,} rows in {record.snapshot_path}", rows=rows)
    return record


def _refusal(reasons: Sequence[str], kept: Location) -> str:
    grounds = "; ".join(reason.rstrip(".") for reason in reasons)
    return f"The validation gate said no, so nothing was published and the candidate is kept in {kept.uri}: {grounds}."


def _publish_again(walk: Walk) -> PublishRecord:
    """A published run whose parts were cleared away: its snapshot becomes the latest one again."""
    record = PublishRecord(**walk.run.published.read_json())
    point_to(walk.needed_output(), record.snapshot_path.rpartition("/")[2])
    return record


def _commit(walk: Walk, parts: list[Location], verdict: Mapping[str, Any]) -> PublishRecord:
    output, settings, source = walk.needed_output(), walk.settings.publish, walk.source
    schema = published_schema(source.schema, include_source=settings.include_source)
    provenance = _provenance(walk)
    walk.store.remember(output)
    with output.staging(walk.spec.run_id) as staging:
        files = stage_snapshot(
            staging,
            schema,
            source=source.batches() if settings.include_source else None,
            synthetic=_rows_of(parts, source.schema).batches(),
            provenance=provenance,
            on_rows=_publishing_listener(walk, source.num_rows * settings.include_source),
        )
        if settings.include_source:
            walk.check_unchanged(walk.reopened())
        latest = commit_snapshot(
            output,
            staging,
            files,
            schema=schema,
            provenance=provenance,
            record=_manifest_facts(walk, verdict),
            report=walk.run.report.read_json(),
            page=walk.run.page.read_bytes(),
            keep_snapshots=settings.keep_snapshots,
            before_pointer=lambda: _keep_model(walk, verdict),
        )
    facts = dataclasses.asdict(latest)
    return PublishRecord(**{f.name: facts[f.name] for f in dataclasses.fields(PublishRecord)})


def _keep_model(walk: Walk, verdict: Mapping[str, Any]) -> None:
    """Puts a model of this run among the versions, with what later nights compare themselves with."""
    run = walk.run
    if not walk.trained.is_new:
        return
    lineage = Lineage.from_dict({**run.lineage.read_json(), "scores": verdict["metrics"]})
    kept = rehearsal_of(read_rows(run.training), read_rows(run.holdout), walk.settings)
    walk.registry.keep(run, lineage, run.reference.read_json(), kept)


def _publishing_listener(walk: Walk, rows_source: int) -> Callable[[int], None]:
    total = rows_source + walk.rows_to_draw
    done = 0

    def listen(rows: int) -> None:
        nonlocal done
        done += rows
        walk.tell("publish", 0.9 * done / max(total, 1), f"{done:,} of {total:,} rows written", rows=done)

    return listen


def _manifest_facts(walk: Walk, verdict: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "verdict": verdict["verdict"],
        "metrics": verdict["metrics"],
        "reasons": verdict["reasons"],
        "run_id": walk.spec.run_id,
        "labels": dict(walk.spec.labels),
        "source": walk.spec.source,
        "settings": walk.settings.to_dict(),
    }


# --- the whole walk ----------------------------------------------------------------------------------------------


def augment(
    source: SourceLike,
    output: "str | PathLike[str]",
    *,
    store: "str | PathLike[str] | None" = None,
    settings: RunSettings | None = None,
    report: Report | None = None,
    engine: Engine | None = None,
) -> AugmentResult:
    """Learns a table, draws new rows, judges them and publishes an augmented snapshot.

    Killed at any moment, it leaves the last snapshot as it was; the next call clears away what was left, and takes up
    the trained model if source and settings are the same.

    Args:
        source: A Parquet file, directory, glob or URI, or a pyarrow or pandas object.
        output: Directory or URI for the snapshots; readers follow its `_latest.json`.
        store: Directory or URI for runs and models; by default `_store` inside the output.
        settings: All choices; the defaults suit most tables.
        report: Told how far the walk has come.
        engine: Makes and loads models; by default `TabularVAE`.

    Raises:
        InputError: The source cannot be learned from.
        UsageError: A setting or the output makes no sense.
        GateRefusedError: The gate said no; nothing was published, the candidate is kept in the store.
        BusyError: Another process is at work on the very same source and settings in this store.
    """
    settings = settings or RunSettings()
    target = Output(locate(output))
    place = Store(locate(store)) if store else Store(target.default_store)
    opened = open_source(source, exclude=settings.read.exclude, synthetic=settings.read.synthetic)
    spec = StepSpec(opened.uri or "memory", place.root.uri, target.root.uri, "unnamed", settings)
    stopwatch = _Stopwatch()
    with stopwatch.time("profile"):
        first_look = Walk(spec, source=source, report=report)
        found = _examine(first_look)
        Night(first_look, found).check_not_broken()
    spec = dataclasses.replace(spec, run_id=CLI_PREFIX + recipe_of(found.fingerprint, settings))
    walk = Walk(spec, source=source, engine=engine, report=report)
    with leaving_no_trace(target, place), place.working_on(spec.run_id, alone=True):
        place.sweep(but=spec.run_id)
        target.sweep()
        walk.run.touch("profile")
        _save_profile(walk, found)
        try:
            published, metrics = _walk_on(walk, stopwatch)
            found_utility, decision = _utility_facts(walk), walk.trained
        except (BundleError, InputError, UsageError):
            place.remove_run(walk.run)
            raise
        place.remove_run(walk.run)
        gc(place, keep=settings.publish.keep_snapshots, but=spec.run_id)
    return AugmentResult(
        **published.to_dict(),
        seconds=stopwatch.seconds(),
        store=place.root.uri,
        model_path=place.model(published.model_version).uri,
        metrics=metrics,
        run_id=spec.run_id,
        decision=decision.decision,
        reason=decision.reason,
        utility=found_utility,
    )


def _walk_on(walk: Walk, stopwatch: "_Stopwatch") -> tuple[PublishRecord, Mapping[str, float]]:
    with stopwatch.time("train"):
        if not walk.is_trained():
            _train(walk)
    with stopwatch.time("generate"):
        _generate(walk)
    with stopwatch.time("validate"):
        judged = _validate(walk)
    if judged.verdict == "fail":
        kept = walk.store.reject(walk.run)
        raise GateRefusedError(_refusal(judged.reasons, kept))
    with stopwatch.time("publish"):
        return _publish(walk), judged.metrics


def _utility_facts(walk: Walk) -> dict[str, Any] | None:
    if walk.settings.utility.target is None:
        return None
    return dataclasses.asdict(walk.utility)


class _Stopwatch:
    """Wall clock by step."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def time(self, step: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self._seconds[step] = round(time.monotonic() - begin, 3)

    def seconds(self) -> dict[str, float]:
        return {**self._seconds, "total": round(time.monotonic() - self._begin, 3)}


# --- one step in its own process ---------------------------------------------------------------------------------

_VERBS = {"profile": profile, "train": train, "generate": generate, "validate": validate, "publish": publish}


def main(arguments: list[str]) -> int:
    """Runs `STEP SPEC.json`; the spec `-` is read from stdin. Speaks JSON lines on stdout and returns the exit code."""
    hold_lifeline()
    with only_results_on_stdout() as stream:
        lines = JsonLines(stream)
        try:
            step, spec = _parse_arguments(arguments)
            record = _VERBS[step](spec, report=lines.progress)
            lines.result(step, record.to_dict())
        except VaeOpsError as error:
            lines.error(type(error).__name__, str(error), error.exit_code)
            return error.exit_code
        except OSError as error:
            failure = StorageError.told(error)
            lines.error(type(failure).__name__, str(failure), failure.exit_code)
            raise
        except Exception as error:
            lines.error(type(error).__name__, str(error) or type(error).__name__, 1)
            raise
    return 0


def _parse_arguments(arguments: list[str]) -> tuple[str, StepSpec]:
    if len(arguments) != 2 or arguments[0] not in _VERBS:
        raise UsageError(f"Expected STEP SPEC.json, where STEP is one of {', '.join(_VERBS)}; got {arguments!r}.")
    step, path = arguments
    try:
        values = json.loads(sys.stdin.read() if path == "-" else Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"Expected a step's spec as a JSON object in {path!r}: {error}.") from error
    if not isinstance(values, dict):
        raise UsageError(f"Expected a step's spec as a JSON object in {path!r}, got {type(values).__name__}.")
    # Beside the spec and no part of it: a spec may be shown, credentials may not.
    use_storage_options(values.pop("storage_options", {}))
    return step, StepSpec.from_dict(values)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
