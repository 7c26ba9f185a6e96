"""Every night: learn a Parquet table anew, draw rows, and publish them with it if the gate agrees.

Copy this file and change the two paths, or set VAE_OPS_SOURCE and VAE_OPS_OUTPUT where Airflow parses DAGs. *Trigger*
in the UI offers every choice as a form. As the output is one of them, each publish updates the asset of the output that
it went to, and `train_on_augmented.py` hears of all of them through one alias. On a cluster, VAE_OPS_TRAINING_QUEUE
names the queue of the workers that train, VAE_OPS_SHARDS the number of tasks that draw rows side by side.
"""

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, AssetAlias

from vae_ops_provider.params import augmentation_params, augmentation_templates
from vae_ops_provider.task_group import VaeAugmentation

_QUEUE = os.environ.get("VAE_OPS_TRAINING_QUEUE")
_DATA = os.path.join(os.environ.get("AIRFLOW_HOME", os.path.expanduser("~/airflow")), "data")

with DAG(
    dag_id="nightly_augmentation",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5), "execution_timeout": timedelta(hours=2)},
    params=augmentation_params(
        source=os.environ.get("VAE_OPS_SOURCE", os.path.join(_DATA, "source.parquet")),
        output=os.environ.get("VAE_OPS_OUTPUT", os.path.join(_DATA, "augmented")),
    ),
    doc_md=__doc__,
    tags=["vae-ops"],
) as dag:
    VaeAugmentation(
        "augment",
        shards=int(os.environ.get("VAE_OPS_SHARDS", "2")),
        asset=AssetAlias("augmented_tables"),
        tasks={"train": {"queue": _QUEUE}} if _QUEUE else None,
        **augmentation_templates(),
    )
