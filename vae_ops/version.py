"""The version of vae-ops, which stands in every lineage: another version trains from nothing.

It is not read from an installed distribution, because there is none where the engine is only mounted, as in
`docker-compose.yaml`.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
