"""What works without a run: train a model into a directory, draw rows from one, judge two tables.

The steps of a run, which share a store and end in a snapshot, are in `steps.py`.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from os import PathLike
from typing import TYPE_CHECKING

import pyarrow as pa

from vae_ops.errors import BundleError, OutputError
from vae_ops.holdout import split_holdout
from vae_ops.profiling import profile_source
from vae_ops.progress import Progress, Report, silent
from vae_ops.publishing import Provenance, verify_part, write_parts
from vae_ops.records import DrawRecord, TrainRecord, ValidateRecord
from vae_ops.schema import check_overrides, infer_semantic_types
from vae_ops.settings import GenerateSettings, ReadSettings, RunSettings
from vae_ops.storage import Location, check_apart, check_writable, locate
from vae_ops.table import SYNTHETIC_COLUMN, open_source
from vae_ops.trees import replacing
from vae_ops.walk import (
    Engine,
    default_engine,
    path_of,
    record_of,
    rows_to_learn,
    training_facts,
    training_listener,
)

if TYPE_CHECKING:
    from vae_ops.table import SourceLike
    from vae_ops.validation.evidence import UtilityEvidence, Validation

__all__ = ["generate_rows", "judge_tables", "train_model"]

_DRAWN = "_drawn.json"
_SEEN = (
    "The test fold is a part of the source. If the generator learned from it, these figures flatter it; give rows that "
    "it never saw as the holdout (--holdout)."
)


def train_model(
    source: "SourceLike",
    directory: "str | PathLike[str]",
    *,
    settings: RunSettings | None = None,
    report: Report = silent,
    engine: Engine | None = None,
    refresh_from: "str | PathLike[str] | None" = None,
) -> TrainRecord:
    """Trains a model of a table and saves it; an older model in the same directory is replaced.

    Args:
        source: The table.
        directory: Where the model is saved.
        settings: How the table is read and the model trained.
        report: Told how far training has come.
        engine: Makes and loads models; by default `TabularVAE`.
        refresh_from: A saved model of the same columns to go on from, which takes `refresh.steps_share` of the steps.

    Raises:
        BundleError: There is no model to go on from, or not what was saved.
        CannotRefreshError: The model to go on from does not fit the table.
        InputError: The source cannot be learned from.
        OutputError: The directory cannot be written, lies inside the source, or holds something that is no model.
    """
    begin = time.monotonic()
    settings = settings or RunSettings()
    target, read = locate(directory), settings.read
    opened = open_source(source, exclude=read.exclude, synthetic=read.synthetic)
    if opened.uri is not None:
        check_apart(locate(opened.uri), target)
    check_writable(target)
    engine = engine or default_engine()
    _check_replaceable(target, engine)
    check_overrides(opened.schema, read.semantic_types)
    profile_source(opened)
    earlier = None if refresh_from is None else engine.load(path_of(locate(refresh_from)))
    rows = rows_to_learn(opened, read)
    model = engine(settings=settings.train, read=read, progress=training_listener(report))
    if earlier is None:
        model.fit_tables(rows.training, rows.holdout)
    else:
        share = settings.refresh.steps_share
        model.refresh_tables(rows.training, rows.holdout, champion=earlier, steps_share=share)
    target.remove()
    record = TrainRecord(
        model_path=target.uri,
        model_version=model.save(path_of(target)),
        decision="retrain" if earlier is None else "refresh",
        reason="Asked for." if earlier is None else f"Asked for: it goes on from model {earlier.version}.",
        is_new=True,
        seconds=round(time.monotonic() - begin, 3),
        **training_facts(model, rows),
    )
    report(Progress("train", 1.0, f"{record.steps:,} steps in {record.seconds:.0f} s", {"steps": record.steps}))
    return record


def _check_replaceable(target: Location, engine: Engine) -> None:
    """Makes sure that only an older model is ever overwritten."""
    if not target.is_dir() or not target.list():
        return
    try:
        engine.load(path_of(target))
    except BundleError as error:
        raise OutputError(
            f"{target.uri!r} already holds something that is not a model; choose a new directory, or empty it."
        ) from error


def generate_rows(
    model_directory: "str | PathLike[str]",
    output: "str | PathLike[str]",
    *,
    settings: GenerateSettings,
    report: Report = silent,
    engine: Engine | None = None,
) -> DrawRecord:
    """Draws rows from a saved model into Parquet files; what an earlier draw left in the directory is replaced.

    Raises:
        BundleError: There is no model, or not what was saved.
        OutputError: The directory cannot be written, or holds something that was not drawn here.
    """
    begin = time.monotonic()
    target, bundle = locate(output), locate(model_directory)
    model = (engine or default_engine()).load(path_of(bundle))
    check_writable(target)
    rows = settings.synthetic_rows(0)
    provenance = Provenance(model_version=model.version, seed=settings.seed)
    with replacing(target, marker=_DRAWN) as making:
        batches = _told(model.sample_shard(rows, seed=settings.seed), rows, report)
        files = [
            verify_part(making.child(name), model.schema)
            for name in write_parts(making, "synthetic", model.schema, batches, provenance)
        ]
        making.child(_DRAWN).write_json({**provenance.key_values(), "files": [asdict(file) for file in files]})
    report(Progress("generate", 1.0, f"{rows:,} rows", {"rows": rows}))
    names = tuple(target.child(file.name).uri for file in files)
    return DrawRecord(target.uri, rows, model.version, settings.seed, names, round(time.monotonic() - begin, 3))


def _told(tables: Iterator[pa.Table], expected: int, report: Report) -> Iterator[pa.RecordBatch]:
    done = 0
    for table in tables:
        yield from table.to_batches()
        done += table.num_rows
        report(Progress("generate", 0.99 * done / max(expected, 1), f"{done:,} rows", {"rows": done}))


def judge_tables(
    source: "SourceLike",
    synthetic: "SourceLike",
    *,
    report: "str | PathLike[str]",
    holdout: "SourceLike | None" = None,
    settings: RunSettings | None = None,
) -> ValidateRecord:
    """Judges any synthetic table against the table it imitates, and writes `report.json` and `report.html`.

    Args:
        source: The real rows.
        synthetic: Synthetic rows; of a table labelled by vae-ops, those that the label calls synthetic.
        report: Directory for the report.
        holdout: Real rows that the generator never saw; by default a random part of the source plays that part
            (`read.holdout_fraction`). If the generator learned from that part too, its copies count as chance.
        settings: Limits of the gate, and how tables are read.

    Raises:
        InputError: A table is missing or unreadable, or the columns do not fit together.
        OutputError: The report cannot be written.
    """
    from vae_ops.validation.gate import judge

    settings = settings or RunSettings()
    read, target = settings.read, locate(report)
    check_writable(target)
    opened = open_source(source, exclude=read.exclude, synthetic=read.synthetic)
    _check_target(opened.schema, settings)
    training = opened.sample(read.max_training_rows, read.seed)
    if holdout is None:
        training, held = split_holdout(training, read.holdout_fraction, read.seed)
    else:
        unlearned = open_source(holdout, exclude=read.exclude, synthetic=read.synthetic, min_rows=1)
        held = unlearned.sample(read.max_training_rows, read.seed)
    rows = _synthetic_rows(synthetic, read)
    utility = _utility(training, held, rows, settings)
    if utility is not None and holdout is None:
        utility = replace(utility, caveat=_SEEN)
    found = judge(
        training,
        held,
        rows,
        settings.gate,
        seed=settings.generate.seed,
        semantic_types=infer_semantic_types(training, read.semantic_types),
        utility=utility,
        utility_settings=settings.utility,
        provenance=_account(opened.uri, settings),
    )
    # Judged is a sample of a large table, and the record says of how large a one.
    return _write_report(replace(found, sizes={**found.sizes, "rows_source": opened.num_rows}), target)


def _account(source: str | None, settings: RunSettings) -> dict[str, str]:
    """What the report says about where the rows come from; who made the synthetic ones is not known."""
    return {"source": source or "a table in memory", "settings": json.dumps(settings.to_dict())}


def _write_report(found: "Validation", target: Location) -> ValidateRecord:
    from vae_ops.validation.report import render_report

    target.make_dirs()
    page = target.child("report.html")
    target.child("report.json").write_json(found.to_dict())
    page.write_atomic(render_report(found).encode())
    return record_of(found, page)


def _check_target(schema: pa.Schema, settings: RunSettings) -> None:
    if settings.utility.target is not None:
        from vae_ops.validation.target import check_target

        check_target(schema, settings.utility)


def _utility(
    training: pa.Table, holdout: pa.Table, synthetic: pa.Table, settings: RunSettings
) -> "UtilityEvidence | None":
    if settings.utility.target is None:
        return None
    from vae_ops.validation.utility import measure_utility

    semantic_types = infer_semantic_types(training, settings.read.semantic_types)
    seed = settings.generate.seed
    return measure_utility(training, holdout, synthetic, semantic_types, settings.utility, seed=seed)


def _synthetic_rows(synthetic: "SourceLike", read: ReadSettings) -> pa.Table:
    opened = open_source(synthetic, synthetic="keep", min_rows=0)
    rows = opened.sample(read.max_training_rows, read.seed, to_learn=False)
    if SYNTHETIC_COLUMN in rows.schema.names:
        rows = rows.filter(rows[SYNTHETIC_COLUMN]).drop_columns([SYNTHETIC_COLUMN])
    return rows
