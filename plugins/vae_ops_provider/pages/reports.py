"""The report page that a task's record names: found through the record alone, read whole within a limit.

No part of a request reaches a path. A record is written by a task, so even its path is trusted no further than needed:
it must be where `vae_ops/store.py` puts report pages, and what is there must be a page.
"""

from typing import TYPE_CHECKING

from fastapi import HTTPException, status

from vae_ops_provider.connections import use_connections
from vae_ops_provider.pages.records import TaskRecord

if TYPE_CHECKING:
    from vae_ops.storage import Location

__all__ = ["read_report"]

_MOST_BYTES = 32 * 2**20
_BEGINNING = b"<!doctype html>"


def read_report(record: TaskRecord | None) -> bytes:
    """The report that a record names, as HTML.

    Raises:
        HTTPException: 404: there is no record, it names no report, or the report is gone or is none. 413: it is too
            large to be one of ours.
    """
    path = record.text("report_path") if record else ""
    if not path:
        raise _missing("This task has no report: validate and publish tasks have one once they are done.")
    from vae_ops.storage import locate  # imports pyarrow, which an api-server without readers need not

    try:
        use_connections(path)
        return _read_page(locate(path))
    except HTTPException:
        raise
    # Object stores raise their own trees (botocore, aiohttp, google.auth) that share no base below Exception.
    except Exception as error:
        raise _missing(
            f"The report of this task cannot be read by the api-server ({type(error).__name__}): it was removed with "
            "an old run, or it lies where only workers can reach it."
        ) from error


def _read_page(place: "Location") -> bytes:
    from vae_ops.store import Output, Run

    pages = (Run(place.parent, "").page, Output.page(place.parent))
    if place.uri not in [page.uri for page in pages]:
        raise _missing("The record of this task names a file that is no report page.")
    if place.size() > _MOST_BYTES:
        raise HTTPException(413, f"The report is larger than {_MOST_BYTES:,} bytes.")
    with place.open_input() as file:
        page = file.read(_MOST_BYTES)
    if not page.lstrip().lower().startswith(_BEGINNING):
        raise _missing("What the record of this task names as its report is no HTML page.")
    return page


def _missing(sentence: str) -> HTTPException:
    return HTTPException(status.HTTP_404_NOT_FOUND, sentence)
