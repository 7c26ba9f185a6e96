"""Differences between the supported versions of Airflow, 3.1 and later: everything else imports such names from here.

A worker needs only `airflow.sdk`, where newer versions keep these names; 3.1 has them in `airflow` alone.
"""

from typing import TYPE_CHECKING

# What the type checker sees is what the newest version has.
if TYPE_CHECKING:
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException, AirflowSkipException
else:
    try:
        from airflow.sdk.configuration import conf
    except ImportError:
        from airflow.configuration import conf
    try:
        from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException, AirflowSkipException
    except ImportError:
        from airflow.exceptions import AirflowFailException, AirflowNotFoundException, AirflowSkipException

__all__ = ["AirflowFailException", "AirflowNotFoundException", "AirflowSkipException", "conf"]
