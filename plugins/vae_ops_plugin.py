"""The folder door: shows `VaeOpsPlugin` to an Airflow whose plugins folder is this one.

An installed wheel shows the same plugin through its `airflow.plugins` entry point. Use one door, never both: Airflow
drops plugins silently when a name arrives twice.
"""

from vae_ops_provider.plugin import VaeOpsPlugin

__all__ = ["VaeOpsPlugin"]
