"""Drift: what moved between two profiles of a table, against what chance does to tables of these sizes.

`measuring.py` compares two profiles: their schemas by itself, their columns by `columns.py`, pairs of columns by
`pairs.py`. `noise.py` says how far apart chance brings two samples of one table; `records.py` holds what was found.
Profiles come from `profiling.py`; what follows from a drift is up to `decision.py`.
"""

from vae_ops.drift.measuring import measure_drift
from vae_ops.drift.records import CALMEST_FIRST, ColumnDrift, Drift, Movement, PairDrift

__all__ = ["CALMEST_FIRST", "ColumnDrift", "Drift", "Movement", "PairDrift", "measure_drift"]
