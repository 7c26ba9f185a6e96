"""Validation: whether synthetic rows are faithful, useful and private enough to publish.

`gate.py` decides; `fidelity.py`, `joint.py`, `privacy.py` and `utility.py` measure, `noise_floor.py` says what chance
alone does to their numbers, `columns.py` encodes what they compare, `evidence.py` holds what was found and `report.py`
shows it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_ops.validation.evidence import Validation, Verdict
    from vae_ops.validation.gate import judge

__all__ = ["Validation", "Verdict", "judge"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: the records cost nothing, the judge brings scikit-learn."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'gate' if name == 'judge' else 'evidence'}"), name)
