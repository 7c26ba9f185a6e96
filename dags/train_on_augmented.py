"""After every publish: train boosted trees on the real rows, and on real and synthetic rows, and log both scores.

An output that `nightly_augmentation.py` publishes to starts this DAG, and the event says which snapshot to read. A run
that is triggered by hand takes the newest snapshot below `output`.

Both models are scored on the same real rows: the holdout that the generator never learned from. It is found again from
the settings in the snapshot's manifest and kept out of both training sets. Two cautions. The holdout steered the
generator's early stop and its gate, so it is unseen but not untouched. And it is a tenth of the table unless the
settings say otherwise, so on a small table the difference between the two scores is mostly noise. Synthetic rows can
help where real ones are scarce; where real rows abound they add nothing and may harm.
"""

import logging
import os
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG, AssetAlias, Param, get_current_context, task

from vae_ops_provider.assets import PublishedSnapshot
from vae_ops_provider.connections import use_connections

_DATA = os.path.join(os.environ.get("AIRFLOW_HOME", os.path.expanduser("~/airflow")), "data")
_MOST_CLASSES = 20

log = logging.getLogger(__name__)


def _holdout(real: Any, read: dict[str, Any]) -> Any:
    """Positions of the source rows that the generator never learned from, chosen the way its train step chose them."""
    import numpy as np
    import pyarrow as pa

    from vae_ops.holdout import held_out_rows
    from vae_ops.settings import ReadSettings
    from vae_ops.table import open_source

    settings = ReadSettings.from_dict(read)
    positions = open_source(pa.table({"position": np.arange(real.num_rows)}))
    sampled = positions.sample(settings.max_training_rows, settings.seed).column("position").to_numpy()
    return sampled[held_out_rows(real.take(sampled), settings.holdout_fraction, settings.seed)]


def _numbers(column: Any) -> Any:
    """One column as floats with NaN for null: numbers as they are, anything else by the code of its value."""
    import pyarrow as pa
    from pyarrow import types

    kind = column.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind)):
        coded = column if types.is_dictionary(kind) else column.dictionary_encode()
        column = coded.unify_dictionaries().combine_chunks().indices
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _score(train: tuple[Any, Any], test: tuple[Any, Any]) -> tuple[str, float]:
    """Name and value of the score that suits the target: AUC for two classes, accuracy for more, R² for a number."""
    import numpy as np
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
    from threadpoolctl import threadpool_limits

    classes = np.unique(train[1])
    kind = HistGradientBoostingClassifier if len(classes) <= _MOST_CLASSES else HistGradientBoostingRegressor
    # Airflow runs the two fits side by side, and trees on all cores slow each other down many times over.
    with threadpool_limits(1):
        model = kind(random_state=0).fit(*train)
    if len(classes) > _MOST_CLASSES:
        return "R²", float(r2_score(test[1], model.predict(test[0])))
    if len(classes) == 2 and len(np.unique(test[1])) == 2:
        return "AUC", float(roc_auc_score(test[1], model.predict_proba(test[0])[:, 1]))
    return "accuracy", float(accuracy_score(test[1], model.predict(test[0])))


@task
def find_snapshot() -> str:
    """Path of the snapshot to learn from."""
    from vae_ops import load_latest

    context = get_current_context()
    published = PublishedSnapshot.from_events(context["triggering_asset_events"])
    if published:
        return published.snapshot_path
    use_connections(context["params"]["output"])
    return load_latest(context["params"]["output"]).snapshot_path


@task
def fit_and_score(snapshot_path: str, with_synthetic: bool) -> dict[str, Any]:
    """Trains on the real rows, with or without the synthetic ones, and scores on the generator's holdout."""
    import numpy as np
    import pyarrow as pa

    from vae_ops.storage import locate
    from vae_ops.store import Output
    from vae_ops.table import SYNTHETIC_COLUMN, open_source

    use_connections(snapshot_path)
    source = open_source(snapshot_path, synthetic="keep")
    rows = pa.Table.from_batches(source.batches(), source.schema)
    manifest = Output.manifest(locate(snapshot_path)).read_json()
    synthetic = rows.column(SYNTHETIC_COLUMN).to_numpy()
    real_at = np.flatnonzero(~synthetic)
    real = rows.take(real_at).drop_columns([SYNTHETIC_COLUMN])
    test_at = real_at[_holdout(real, manifest["settings"]["read"])]
    train_at = np.setdiff1d(np.arange(len(rows)) if with_synthetic else real_at, test_at)

    target = get_current_context()["params"]["target"] or source.schema.names[-2]
    features = np.column_stack(
        [_numbers(rows.column(c)) for c in rows.column_names if c not in (target, SYNTHETIC_COLUMN)]
    )
    labels = _numbers(rows.column(target))
    known = ~np.isnan(labels)
    train_at, test_at = train_at[known[train_at]], test_at[known[test_at]]
    metric, score = _score((features[train_at], labels[train_at]), (features[test_at], labels[test_at]))
    return {"metric": metric, "score": score, "rows": len(train_at), "test_rows": len(test_at), "target": target}


@task
def compare(real: dict[str, Any], augmented: dict[str, Any]) -> dict[str, Any]:
    """Logs both scores side by side."""
    what = f"{real['metric']} for {real['target']!r} on {real['test_rows']} held-out real rows"
    log.info("%s: %.4f trained on %d real rows", what, real["score"], real["rows"])
    log.info("%s: %.4f trained on %d real and synthetic rows", what, augmented["score"], augmented["rows"])
    return {"real": real, "augmented": augmented}


with DAG(
    dag_id="train_on_augmented",
    schedule=AssetAlias("augmented_tables"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={
        "output": Param(
            os.environ.get("VAE_OPS_OUTPUT", os.path.join(_DATA, "augmented")),
            type="string",
            title="Output directory of the augmentation",
            description="Read only when no asset event says which snapshot to take.",
        ),
        "target": Param(
            None,
            type=["null", "string"],
            title="Target column",
            description="Empty takes the last column of the source.",
        ),
    },
    doc_md=__doc__,
    tags=["vae-ops"],
) as dag:
    snapshot = find_snapshot()
    compare(
        real=fit_and_score.override(task_id="fit_on_real")(snapshot, with_synthetic=False),
        augmented=fit_and_score.override(task_id="fit_on_augmented")(snapshot, with_synthetic=True),
    )
