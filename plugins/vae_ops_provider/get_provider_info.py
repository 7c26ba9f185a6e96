"""What Airflow knows of us as a provider: `airflow providers list`, `links`, and the section `[vae_ops]` of its config.

Reached through the `apache_airflow_provider` entry point of the wheel; a plugins folder brings the plugin alone.
"""

from typing import Any

from vae_ops_provider.configuration import describe_section

__all__ = ["get_provider_info"]

_INTEGRATION = "VAE Ops"


def get_provider_info() -> dict[str, Any]:
    """The provider record that Airflow's providers manager reads and checks against its schema."""
    return {
        "package-name": "vae-ops",
        "name": _INTEGRATION,
        "description": "Nightly, validated, augmented Parquet tables from a variational autoencoder.",
        "integrations": [{"integration-name": _INTEGRATION, "tags": ["software"]}],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["vae_ops_provider.operators", "vae_ops_provider.approval"],
            }
        ],
        "extra-links": [f"vae_ops_provider.links.{name}" for name in ("ModelLink", "ReportLink", "SnapshotLink")],
        "config": describe_section(),
    }
