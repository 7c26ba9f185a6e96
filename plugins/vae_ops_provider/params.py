"""The trigger form: Params of a DAG around `VaeAugmentation`, and the templates that read them.

Airflow draws the form from these schemas and refuses bad values with the schema's own message, in the UI and over
REST alike; what a schema cannot say, `vae_ops.settings` says when the first task starts.
"""

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Param

__all__ = ["augmentation_params", "augmentation_templates"]

# What most runs ask for stands above all sections: were everything in one, the form would open on an empty page.
_MODEL = "Model"
_GATE = "Quality gate"
_ADVANCED = "Advanced"
_LARGEST_SEED = 2**63 - 1
_REFRESH = {
    "auto": "auto: by what has moved in the source",
    "reuse": "reuse: draw from it, learn nothing",
    "refresh": "refresh: go on learning from where it is",
    "retrain": "retrain: learn from nothing",
}
_STRICTNESS = {
    "standard": "standard: what the documentation promises",
    "strict": "strict: half the errors, tighter privacy",
    "lenient": "lenient: twice the errors, privacy as ever",
}


def augmentation_params(
    *, source: str, output: str, time_budget_seconds: float = 60, columns: Sequence[str] = ()
) -> dict[str, Param]:
    """Params that let a person start a run with other choices; the arguments are the scheduled run's values.

    Args:
        source: Parquet table that the scheduled run learns from.
        output: Directory of its snapshots.
        time_budget_seconds: Its training time.
        columns: Names of the source's columns, if they are known: the form then offers them where it asks for columns.
    """
    return {
        "source": Param(
            source,
            type="string",
            minLength=1,
            title="Source table",
            description="Parquet file, directory, glob or URI (such as `s3://bucket/table`) to learn from.",
        ),
        "output": Param(
            output,
            type="string",
            minLength=1,
            title="Output directory",
            description="Snapshots are published below it; it must not lie inside the source.",
        ),
        **_amount_params(),
        **_column_params(list(columns)),
        **_model_params(time_budget_seconds),
        "strictness": Param(
            "standard",
            type="string",
            enum=list(_STRICTNESS),
            values_display=_STRICTNESS,
            title="Strictness of the gate",
            description="How far synthetic rows may be from real ones before they are not published.",
            section=_GATE,
        ),
        **_advanced_params(),
    }


def _amount_params() -> dict[str, Param]:
    return {
        "rows": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            title="Synthetic rows",
            description="Leave empty to draw by ratio.",
        ),
        "ratio": Param(
            None,
            # A field for text, as that alone takes both: the form draws the first type that is not null.
            type=["null", "string", "number"],
            pattern=r"^\s*(auto|\d+\.?\d*|\.\d+)\s*$",
            minimum=0,
            title="Synthetic rows per source row",
            description="A number, or `auto` for the dose that provably helps to learn the target below, if any does. "
            "Leave empty, together with the rows above, for one synthetic row per source row.",
        ),
    }


def _column_params(columns: list[str]) -> dict[str, Param]:
    offered: dict[str, Any] = {"examples": columns} if columns else {}
    entering = "Pick any number of columns" if columns else "One column name per line"
    return {
        "target": Param(
            None,
            type=["null", "string"],
            minLength=1,
            title="Target column",
            description="Column that downstream models will learn; validation says what the rows are worth for it.",
            **offered,
        ),
        "exclude": Param(
            [],
            type="array",
            items={"type": "string", "minLength": 1},
            uniqueItems=True,
            title="Excluded columns",
            description=f"{entering}; these are neither learned nor published.",
            **offered,
        ),
    }


def _model_params(time_budget_seconds: float) -> dict[str, Param]:
    return {
        "time_budget_seconds": Param(
            time_budget_seconds,
            type="number",
            exclusiveMinimum=0,
            maximum=86_400,
            title="Training time (seconds)",
            description="Wall clock that training may take on two quiet cores.",
            section=_MODEL,
        ),
        "refresh": Param(
            "auto",
            type="string",
            enum=list(_REFRESH),
            values_display=_REFRESH,
            title="Model of earlier runs",
            description="`auto` reuses it, refreshes it or trains from nothing; the others are done whatever moved.",
            section=_MODEL,
        ),
    }


def _advanced_params() -> dict[str, Param]:
    return {
        "seed": Param(
            0,
            type="integer",
            minimum=0,
            maximum=_LARGEST_SEED,
            title="Seed",
            description="The same source, settings and seed give the same bytes.",
            section=_ADVANCED,
        ),
        "settings": Param(
            {},
            type="object",
            title="Further settings",
            description='By section; they win over the fields above. Example: {"gate": {"max_c2st_auc": 0.6}}',
            section=_ADVANCED,
        ),
    }


def augmentation_templates() -> dict[str, Any]:
    """Arguments of `VaeAugmentation` that read every one of `augmentation_params` when a task starts."""
    names = augmentation_params(source="-", output="-")
    return {name: f"{{{{ params.{name} }}}}" for name in names}
