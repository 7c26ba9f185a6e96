"""vae-ops: nightly, validated, augmented Parquet tables from a variational autoencoder.

The public names, each imported when it is first used: `import vae_ops` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vae_ops.version import __version__ as __version__

if TYPE_CHECKING:
    from vae_ops.publishing import LatestSnapshot, load_latest
    from vae_ops.records import AugmentResult
    from vae_ops.settings import RunSettings
    from vae_ops.standalone import judge_tables as validate
    from vae_ops.steps import augment
    from vae_ops.vae import TabularVAE

__all__ = ["AugmentResult", "LatestSnapshot", "RunSettings", "TabularVAE", "augment", "load_latest", "validate"]

_HOMES = {
    "AugmentResult": ("vae_ops.records", "AugmentResult"),
    "LatestSnapshot": ("vae_ops.publishing", "LatestSnapshot"),
    "RunSettings": ("vae_ops.settings", "RunSettings"),
    "TabularVAE": ("vae_ops.vae", "TabularVAE"),
    "augment": ("vae_ops.steps", "augment"),
    "load_latest": ("vae_ops.publishing", "load_latest"),
    "validate": ("vae_ops.standalone", "judge_tables"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
