"""Where the snapshots and models of one partition lie: beside those of all others, never among them.

Airflow's partition key is whatever a timetable or a person made it; here it becomes the name of one directory.
`operators.py` asks for it, `vae_ops` gets paths and knows nothing of keys but to write them into the provenance.
"""

import hashlib
from urllib.parse import quote

__all__ = ["partition_directory"]

# A file name may have 255 bytes; a lock or a thing in the making puts a few before and behind it.
_LONGEST_VALUE = 180


def partition_directory(directory: str, key: str) -> str:
    """Path or URI of one partition below the directory of all: `…/partition=2026-11-23`.

    What is not a letter, a digit or one of `-._~` is escaped as in a URL, which is how readers of Hive partitions take
    it back. Of a key too long for a file name the beginning stays, and a digest tells it from others.

    Args:
        directory: Path or URI, such as the `output` of all partitions.
        key: Any text that is not empty.
    """
    value = quote(key, safe="")
    if len(value) > _LONGEST_VALUE:
        digest = hashlib.blake2s(key.encode(), digest_size=8).hexdigest()
        value = f"{value[:_LONGEST_VALUE].rpartition('%')[0] or value[:_LONGEST_VALUE]}~{digest}"
    return f"{directory.rstrip('/')}/partition={value}"
