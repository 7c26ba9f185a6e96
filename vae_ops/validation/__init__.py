"""Validation: whether synthetic rows are faithful and private enough to publish.

`gate.py` decides; `fidelity.py` and `privacy.py` measure; `columns.py` encodes what they compare.
"""

from vae_ops.validation.gate import ColumnShape, GateResult, Verdict, judge

__all__ = ["ColumnShape", "GateResult", "Verdict", "judge"]
