"""What `airflow providers list` shows; reached through the `apache_airflow_provider` entry point."""

from typing import Any

__all__ = ["get_provider_info"]


def get_provider_info() -> dict[str, Any]:
    """The provider record that Airflow's providers manager reads."""
    return {
        "package-name": "vae-ops",
        "name": "VAE Ops",
        "description": "Nightly, validated, augmented Parquet tables from a variational autoencoder.",
    }
