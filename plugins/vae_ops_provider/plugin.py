"""The Airflow plugin of vae-ops; both doors (wheel entry point, plugins folder) lead to this one class."""

from airflow.plugins_manager import AirflowPlugin

__all__ = ["VaeOpsPlugin"]


class VaeOpsPlugin(AirflowPlugin):
    """Makes vae-ops known to Airflow by name."""

    name = "vae_ops"
