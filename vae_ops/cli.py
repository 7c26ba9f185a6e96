"""The command line: `vae-ops augment | profile | train | generate | validate | inspect`.

Reads options, calls one function of `steps.py`, `standalone.py` or `inspection.py`, shows progress on stderr and then
one result: lines on stderr, or with `--json` one JSON object on stdout. Nothing heavy is imported before a command
needs it, so `--help` is instant.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import click

from vae_ops.errors import GateRefusedError, SettingsError, StorageError, VaeOpsError
from vae_ops.progress import Report, bar, log_lines, only_results_on_stdout
from vae_ops.settings import RunSettings
from vae_ops.version import __version__

__all__ = ["commands", "main"]


class _Commands(click.Group):
    """Turns the project's errors into one sentence on stderr and the exit code of their class."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VaeOpsError as error:
            self._fail(ctx, error)
        except BrokenPipeError:
            raise
        except OSError as error:
            self._fail(ctx, StorageError.told(error))

    @staticmethod
    def _fail(ctx: click.Context, error: VaeOpsError) -> NoReturn:
        click.echo(f"Error: {error}", err=True)
        ctx.exit(error.exit_code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def commands() -> None:
    """Learns a Parquet table and publishes it augmented with validated synthetic rows.

    Exit codes: 0 done, 2 bad usage or bad input, 3 the validation gate said no, 1 anything else.
    """


def main() -> None:
    """Entry point of the `vae-ops` script."""
    commands(prog_name="vae-ops")


# --- options -------------------------------------------------------------------------------------------------------

_seed = click.option(
    "--seed", type=int, default=None, metavar="N", help="Decides sample, training and rows. [default: 0]"
)
_time_budget = click.option(
    "--time-budget", type=float, metavar="S", help="Seconds that training should take on two cores. [default: 60]"
)
_target = click.option(
    "--target", metavar="COLUMN", help="Column that the rows should help to learn: measures utility and the dose curve."
)
_refresh = click.option(
    "--refresh",
    type=click.Choice(["auto", "reuse", "refresh", "retrain"]),
    help="What is done with the model of an earlier run; 'auto' decides by what has moved. [default: auto]",
)
_exclude = click.option("--exclude", multiple=True, metavar="COLUMN", help="Leave a column out; may be repeated.")
_set = click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.NAME=VALUE", help="Any other setting; may be repeated."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


def _run_settings(
    overrides: tuple[str, ...] = (),
    *,
    seed: int | None = None,
    time_budget: float | None = None,
    exclude: tuple[str, ...] = (),
    target: str | None = None,
    refresh: str | None = None,
    generate: Mapping[str, Any] | None = None,
) -> RunSettings:
    """Settings from the named options, then from `--set`, which wins."""
    values: dict[str, dict[str, Any]] = {"read": {}, "train": {}, "generate": dict(generate or {})}
    if seed is not None:
        for named in values.values():
            named["seed"] = seed
    if time_budget is not None:
        values["train"]["time_budget_seconds"] = time_budget
    if exclude:
        values["read"]["exclude"] = list(exclude)
    if target is not None:
        values["utility"] = {"target": target}
    if refresh is not None:
        values["refresh"] = {"mode": refresh}
    for override in overrides:
        section, name, value = _parse_override(override)
        values.setdefault(section, {})[name] = value
    return RunSettings.from_dict(values)


def _parse_override(text: str) -> tuple[str, str, Any]:
    path, equals, value = text.partition("=")
    section, _, name = path.partition(".")
    if not (equals and section and name):
        raise SettingsError(f"--set expects SECTION.NAME=VALUE, such as train.steps=1000; got {text!r}.")
    try:
        return section, name, json.loads(value)
    except json.JSONDecodeError:
        return section, name, value


def _ratio(context: click.Context, option: click.Parameter, text: str | None) -> "float | str | None":
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"expected a number or 'auto', got {text!r}.") from None


@contextlib.contextmanager
def _progress() -> Iterator[Report]:
    """A bar on a terminal, lines elsewhere; meanwhile nothing but results reaches stdout."""
    with only_results_on_stdout():
        if sys.stderr.isatty():
            with bar(sys.stderr) as report:
                yield report
        else:
            yield log_lines(sys.stderr)


def _show(result: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
        return
    width = max(map(len, result), default=0)
    for name, value in result.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {_readable(value)}", err=True)


def _readable(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "  ".join(f"{name} {_readable(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(map(_readable, value)) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


# --- commands ------------------------------------------------------------------------------------------------------


@commands.command()
@click.argument("source")
@click.argument("output")
@click.option("--rows", type=int, metavar="N", help="Synthetic rows.")
@click.option(
    "--ratio",
    callback=_ratio,
    metavar="R",
    help="Synthetic rows per source row; 'auto' is the dose that provably helps to learn the --target, if any does; "
    "without a target it is one for one. [default: 1]",
)
@_target
@click.option("--store", metavar="DIR", help="Where runs and models are kept. [default: OUTPUT/_store]")
@click.option("--no-source", is_flag=True, help="Publish the synthetic rows alone, in exactly the source's schema.")
@_refresh
@_time_budget
@_seed
@_exclude
@_set
@_json
def augment(
    source: str,
    output: str,
    rows: int | None,
    ratio: float | str | None,
    target: str | None,
    store: str | None,
    no_source: bool,
    refresh: str | None,
    time_budget: float | None,
    seed: int | None,
    exclude: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Learn SOURCE, draw new rows, judge them, and publish an augmented snapshot in OUTPUT.

    SOURCE is a Parquet file, a directory, a glob or a URI. Readers of OUTPUT follow its _latest.json.
    """
    from vae_ops.steps import augment as walk

    size = {name: value for name, value in {"rows": rows, "ratio": ratio}.items() if value is not None}
    if no_source:
        overrides = ("publish.include_source=false", *overrides)
    settings = _run_settings(
        overrides,
        seed=seed,
        time_budget=time_budget,
        exclude=exclude,
        target=target,
        refresh=refresh,
        generate=size,
    )
    with _progress() as report:
        result = walk(source, output, store=store, settings=settings, report=report)
    if not as_json and result.verdict == "borderline":
        click.echo("The verdict is borderline: published, but look at the report.", err=True)
    facts = result.to_dict()
    _show(facts if as_json else {**facts, "utility": _utility_in_words(facts["utility"])}, as_json)


def _utility_in_words(utility: Mapping[str, Any] | None) -> str:
    if utility is None:
        return "not asked for; name a --target"
    if utility["not_measured"]:
        return str(utility["not_measured"])
    scores = f"{utility['metric']} {_readable(utility['score_real'])} from real rows"
    scores = f"{scores}, {_readable(utility['score_synthetic'])} from synthetic rows."
    return f"{scores} {(utility['dose_curve'] or {}).get('reason', '')}".rstrip()


@commands.command()
@click.argument("source")
@_exclude
@_json
def profile(source: str, exclude: tuple[str, ...], as_json: bool) -> None:
    """Say what SOURCE holds, column by column; write nothing."""
    from vae_ops.profiling import profile_source
    from vae_ops.table import open_source

    found = profile_source(open_source(source, exclude=exclude))
    if as_json:
        # The sampled rows are for `drift.py`, and longer than all the rest.
        _show({key: value for key, value in found.to_dict().items() if key != "sample"}, as_json)
        return
    _show({"rows": found.rows, "fingerprint": found.fingerprint}, as_json)
    for column in found.columns:
        facts = f"{column.semantic_type}, {column.type}, {column.nulls:,} null, about {column.distinct:,} distinct"
        click.echo(f"  {column.name}: {facts}", err=True)


@commands.command()
@click.argument("source")
@click.option("--model", required=True, metavar="DIR", help="Where the model is saved.")
@click.option(
    "--refresh-from", metavar="DIR", help="Go on from this model of the same columns, in a fraction of the steps."
)
@_time_budget
@_seed
@_exclude
@_set
@_json
def train(
    source: str,
    model: str,
    refresh_from: str | None,
    time_budget: float | None,
    seed: int | None,
    exclude: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a model of SOURCE and save it to DIR."""
    from vae_ops.standalone import train_model

    settings = _run_settings(overrides, seed=seed, time_budget=time_budget, exclude=exclude)
    with _progress() as report:
        result = train_model(source, model, settings=settings, report=report, refresh_from=refresh_from)
    _show(result.to_dict(), as_json)


@commands.command()
@click.argument("model_dir")
@click.option("--rows", type=int, required=True, metavar="N", help="How many rows.")
@click.option("--output", required=True, metavar="DIR", help="Where the Parquet files go.")
@_seed
@_json
def generate(model_dir: str, rows: int, output: str, seed: int | None, as_json: bool) -> None:
    """Draw N rows from the model in MODEL_DIR into Parquet files in DIR."""
    from vae_ops.standalone import generate_rows

    settings = _run_settings(seed=seed, generate={"rows": rows}).generate
    with _progress() as report:
        result = generate_rows(model_dir, output, settings=settings, report=report)
    _show(result.to_dict(), as_json)


@commands.command()
@click.argument("source")
@click.argument("synthetic")
@click.option("--report", required=True, metavar="DIR", help="Where report.html and report.json go.")
@click.option("--holdout", metavar="PATH", help="Real rows that the generator never saw. [default: a tenth of SOURCE]")
@_target
@_exclude
@_set
@_json
def validate(
    source: str,
    synthetic: str,
    report: str,
    holdout: str | None,
    target: str | None,
    exclude: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Judge SYNTHETIC against SOURCE; exit 3 if the gate says no."""
    from vae_ops.standalone import judge_tables

    settings = _run_settings(overrides, exclude=exclude, target=target)
    with only_results_on_stdout():
        result = judge_tables(source, synthetic, report=report, holdout=holdout, settings=settings)
    _show(result.to_dict(), as_json)
    if result.verdict == "fail":
        raise GateRefusedError(f"The validation gate said no; see {result.report_path}.")


@commands.command()
@click.argument("path")
@_json
def inspect(path: str, as_json: bool) -> None:
    """Say what lies at PATH: a model, a snapshot, an output, a run or a Parquet table."""
    from vae_ops.inspection import describe

    _show(describe(path), as_json)


@commands.command()
@click.argument("path")
@click.option(
    "--keep", type=int, metavar="N", help="Champions of each output that stay, and runs of a scheduler. [default: 7]"
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--forget", multiple=True, metavar="OUTPUT", help="An output that is gone for good; repeatable.")
@_json
def gc(path: str, keep: int | None, dry_run: bool, forget: tuple[str, ...], as_json: bool) -> None:
    """Remove what nothing points at from the store at PATH, or in the output at PATH."""
    from vae_ops.settings import PublishSettings
    from vae_ops.upkeep import collect_garbage

    kept = PublishSettings().keep_snapshots if keep is None else keep
    _show(dataclasses.asdict(collect_garbage(path, keep=kept, dry_run=dry_run, forget=forget)), as_json)


@commands.command()
@click.argument("path")
@click.option("--to", metavar="VERSION", help="Any version that the store has. [default: the champion before]")
@click.option("--output", metavar="OUTPUT", help="Whose champion is meant, where a store feeds several outputs.")
@_json
def rollback(path: str, to: str | None, output: str | None, as_json: bool) -> None:
    """Make an earlier model champion again in the store at PATH, or in the output at PATH.

    Readers of the output find the newest snapshot again that no withdrawn model has drawn.
    """
    from vae_ops.upkeep import roll_back

    result = roll_back(path, to, output=output)
    if not as_json and result.unchanged:
        click.echo("Some readers still find rows of a withdrawn model, as there is no other snapshot.", err=True)
    _show(result.to_dict(), as_json)
