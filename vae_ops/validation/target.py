"""The target: which column is to be learned, what learning it means, and its values as numbers or classes.

`utility.py` learns it; the other columns are encoded by `columns.py`.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vae_ops.errors import SchemaError, SettingsError
from vae_ops.schema import SemanticType, natural_type
from vae_ops.settings import UtilitySettings
from vae_ops.validation.columns import NumberColumn, encode_tables, joint_codes, quoted

__all__ = ["Target", "Task", "check_target", "read_target", "rows_with_target"]

Task = Literal["regression", "binary", "multiclass"]

MAX_CLASSES = 20
FEWEST_TEST_ROWS = 50
_IMBALANCED = 0.1
_LABELS = frozenset({SemanticType.CATEGORICAL, SemanticType.BOOLEAN, SemanticType.IDENTIFIER})


@dataclass(frozen=True)
class Target:
    """The target's values in several tables.

    Attributes:
        task: What learning them means.
        values: Per table, float64 `(rows,)`: the values, or class numbers from 0, the most frequent class first.
        classes: Number of classes; 0 for a regression.
        imbalanced: Whether one of them is seen in fewer than a tenth of the first table's rows.
    """

    task: Task
    values: tuple[NDArray[np.float64], ...]
    classes: int
    imbalanced: bool


def check_target(schema: pa.Schema, settings: UtilitySettings) -> None:
    """Makes sure, before any row is read, that the target is there and can be learned as the settings say.

    Raises:
        SchemaError: The table has no such column.
        SettingsError: Texts are to be learned as numbers.
    """
    target = settings.target
    if target is None:
        return
    if target not in schema.names:
        near = difflib.get_close_matches(target, schema.names, n=1)
        hint = f"did you mean {quoted(near[0])}?" if near else "name one of its columns."
        raise SchemaError(f"The target {quoted(target)} is not a column of the table; {hint}")
    if settings.task == "regression" and natural_type(schema.field(target).type) is SemanticType.CATEGORICAL:
        raise SettingsError(
            f"utility.task says regression, but the target {quoted(target)} holds {schema.field(target).type} and no "
            "numbers: leave the task out, or name another target."
        )


def rows_with_target(table: pa.Table, target: str) -> pa.Table:
    """The rows whose target is known: neither null nor NaN."""
    column = table.column(target)
    known = pc.is_valid(column)
    if pa.types.is_floating(column.type):
        known = pc.and_(known, pc.is_finite(pc.fill_null(column, float("nan"))))
    return table if pc.all(known).as_py() else table.filter(known)


def read_target(
    tables: Sequence[pa.Table], semantic_types: Mapping[str, SemanticType], settings: UtilitySettings
) -> tuple[Target, list[pa.Table]]:
    """Reads the target in several aligned tables and drops what cannot be scored.

    Args:
        tables: Rows with a known target; the first decides the task and which classes there are.
        semantic_types: Of every column.
        settings: The target and, where it is forced, the task.

    Returns:
        The target, and the tables without rows of a class that is not among the first table's most frequent
        `MAX_CLASSES`.
    """
    name = settings.target or ""
    columns = [table.column(name) for table in tables]
    if _is_regression(columns[0], semantic_types[name], settings.task):
        encoded = encode_tables([table.select([name]) for table in tables], {name: _number_type(semantic_types[name])})
        values = [column.values for table in encoded if isinstance(column := table[name], NumberColumn)]
        return Target("regression", tuple(values), 0, imbalanced=False), list(tables)
    return _classes(columns, tables)


def _is_regression(column: pa.ChunkedArray, semantic_type: SemanticType, task: str | None) -> bool:
    if task is not None:
        return task == "regression"
    if semantic_type in _LABELS or natural_type(column.type) in _LABELS:
        return False
    return not pa.types.is_integer(column.type) or len(pc.unique(column)) > MAX_CLASSES


def _number_type(semantic_type: SemanticType) -> SemanticType:
    """A type under which `columns.py` encodes values as numbers."""
    return SemanticType.NUMERIC if semantic_type in {*_LABELS, SemanticType.CONSTANT} else semantic_type


def _classes(columns: Sequence[pa.ChunkedArray], tables: Sequence[pa.Table]) -> tuple[Target, list[pa.Table]]:
    codes, size = joint_codes(columns)
    counts = np.bincount(codes[0], minlength=size)
    order = np.argsort(-counts, kind="stable")
    kept = order[counts[order] > 0][:MAX_CLASSES]
    number = np.full(size, -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    numbers = [number[part] for part in codes]
    shares = counts[kept] / max(counts[kept].sum(), 1)
    target = Target(
        task="binary" if len(kept) <= 2 else "multiclass",
        values=tuple(part[part >= 0].astype(np.float64) for part in numbers),
        classes=len(kept),
        imbalanced=bool(len(kept) > 1 and shares.min() < _IMBALANCED),
    )
    return target, [_filtered(table, part >= 0) for table, part in zip(tables, numbers, strict=True)]


def _filtered(table: pa.Table, mask: NDArray[Any]) -> pa.Table:
    return table if mask.all() else table.filter(pa.array(mask))
