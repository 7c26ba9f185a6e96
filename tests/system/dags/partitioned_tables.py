"""For `tests/system/test_chained_dags.py`: a partitioned table whose borderline runs wait for a person; its reader.

`python` is an interpreter whose steps need no network.
"""

from airflow.sdk import DAG, CronPartitionTimetable, Param, PartitionedAssetTimetable, get_current_context, task

from vae_ops_provider.assets import PublishedSnapshot
from vae_ops_provider.params import augmentation_params, augmentation_templates
from vae_ops_provider.task_group import VaeAugmentation

with DAG(
    "partitioned_tables",
    schedule=CronPartitionTimetable("0 2 1 1 *", timezone="UTC", key_format="%Y-%m-%d"),
    params={**augmentation_params(source="-", output="-"), "python": Param("-", type="string")},
):
    augmentation = VaeAugmentation(
        shards=2, approval="borderline", python="{{ params.python }}", **augmentation_templates()
    )


@task
def read_event() -> dict[str, object]:
    """What the reader learns from the event."""
    context = get_current_context()
    published = PublishedSnapshot.from_events(context["triggering_asset_events"])
    return {"key": context["partition_key"], "snapshot_path": published and published.snapshot_path}


with DAG("read_partitions", schedule=PartitionedAssetTimetable(assets=augmentation.asset)):
    read_event()
