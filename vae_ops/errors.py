"""The one tree of errors.

Every error this project raises on purpose is a `VaeOpsError` with one sentence for a person: what was expected, what
arrived, where, and what to do next. The exit code of the command line hangs on the class, nowhere else.

    VaeOpsError                  1   anything that went wrong on purpose
    ├── UsageError               2   the caller asked for something that makes no sense
    │   ├── SettingsError        2   a setting is misspelt, of the wrong type or out of range
    │   └── OutputError          2   the output or store cannot be written, or lies inside the source
    ├── InputError               2   the data cannot be learned from
    │   ├── SourceError          2   missing, unreadable, not Parquet, truncated, conflicting partitions
    │   ├── SchemaError          2   zero columns, duplicate names, nested types, unknown column
    │   └── ContentError         2   empty, one row, all null, infinities
    ├── BundleError              2   a saved model is missing, tampered with, or of a newer format
    ├── GateRefusedError         3   the validation gate said no; nothing was published
    ├── StorageError             1   a disk or an object store failed: full, read-only, gone, or out of reach
    ├── BusyError                1   another process is working on the very same run
    ├── CannotRefreshError       1   a model cannot go on with these rows: train from nothing
    └── StepFailedError          1   a step that ran in its own process died without a result
        └── OutOfMemoryError     1   for lack of memory, or beyond the memory it was given
"""

from typing import ClassVar, Self

__all__ = [
    "BundleError",
    "BusyError",
    "CannotRefreshError",
    "ContentError",
    "GateRefusedError",
    "InputError",
    "OutOfMemoryError",
    "OutputError",
    "SchemaError",
    "SettingsError",
    "SourceError",
    "StepFailedError",
    "StorageError",
    "UsageError",
    "VaeOpsError",
]


class VaeOpsError(Exception):
    """Base of every error raised on purpose; `str(error)` is one clear sentence."""

    exit_code: ClassVar[int] = 1


class UsageError(VaeOpsError):
    """The caller asked for something that makes no sense."""

    exit_code: ClassVar[int] = 2


class SettingsError(UsageError):
    """A setting is misspelt, of the wrong type or out of range."""


class OutputError(UsageError):
    """The output or store cannot be written, or lies inside the source."""


class InputError(VaeOpsError):
    """The data cannot be learned from."""

    exit_code: ClassVar[int] = 2


class SourceError(InputError):
    """The source is missing, unreadable, not Parquet, truncated, or its partitions conflict."""


class SchemaError(InputError):
    """The schema has no columns, duplicate names, nested types, or lacks a named column."""


class ContentError(InputError):
    """The rows cannot be learned from: none, one, all null, or infinite values."""


class BundleError(VaeOpsError):
    """A saved model is missing, was tampered with, or comes from a newer format."""

    exit_code: ClassVar[int] = 2


class GateRefusedError(VaeOpsError):
    """The validation gate said no; nothing was published."""

    exit_code: ClassVar[int] = 3


class StorageError(VaeOpsError):
    """A disk or an object store failed: full, read-only, gone, or out of reach."""

    @classmethod
    def told(cls, error: OSError) -> Self:
        """What went wrong where, in one sentence; nothing half-written is ever visible, so trying again is safe."""
        what = " ".join((error.strerror or str(error) or type(error).__name__).split())
        where = f" at {error.filename}" if error.filename else ""
        return cls(f"Reading or writing failed{where} ({what}): mend that and run again; no reader has seen any of it.")


class BusyError(VaeOpsError):
    """Another process is working on the very same run."""


class CannotRefreshError(VaeOpsError):
    """A model cannot go on with these rows; the walk trains one from nothing instead."""


class StepFailedError(VaeOpsError):
    """A step that ran in its own process died without a result."""


class OutOfMemoryError(StepFailedError):
    """A step needed more memory than there was, or than it was given."""
