"""URIs that name an Airflow connection, such as `s3://lake@bucket/trades`: from the name to what opens the files.

Here, in Airflow's process, a connection becomes the fsspec options that `vae_ops.storage` opens such URIs with. They go
into a step's process with its spec, through stdin and no other way (`process.py`), so credentials stand in no command
line, environment, file, XCom or manifest; the name of the connection may.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from vae_ops.errors import SettingsError
from vae_ops_provider.compatibility import AirflowNotFoundException

__all__ = ["storage_options", "use_connections", "with_storage_options"]

_PLACES = ("source", "output", "store")
_SECRETIVE = ("key", "secret", "token", "password", "credential", "connection_string")


def with_storage_options(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A step's spec, and beside it the options of the connections that its URIs name.

    Raises:
        SettingsError: A connection is unknown, or nothing can be made of it.
    """
    options = storage_options(spec[place] for place in _PLACES)
    return {**spec, "storage_options": options} if options else dict(spec)


def use_connections(*uris: str) -> None:
    """Lets this process open URIs that name a connection, with `vae_ops.load_latest` or anything else of `vae_ops`.

    The operators need no such call; tasks that read what they published do.

    Raises:
        SettingsError: A connection is unknown, or nothing can be made of it.
    """
    # pyarrow costs a DAG file that only imports this a second.
    from vae_ops.storage import use_storage_options

    use_storage_options(storage_options(uris))


def storage_options(uris: Iterable[str | None]) -> dict[str, dict[str, Any]]:
    """What opens the filesystems of these URIs, as JSON values by the beginning of the URI (`SCHEME://CONNECTION@`).

    URIs without a connection need none and have no entry.

    Raises:
        SettingsError: A connection is unknown, or nothing can be made of it.
    """
    named = {parts for uri in uris if uri and (parts := _name_of(uri)) is not None}
    return {f"{scheme}://{name}@": _options(scheme, name) for scheme, name in sorted(named) if _is_known(scheme, name)}


def _name_of(uri: str) -> tuple[str, str] | None:
    """Scheme and what may be a connection, read as Airflow's own `ObjectStoragePath` does."""
    scheme, separator, rest = uri.partition("://")
    name = rest.partition("/")[0].rpartition("@")[0]
    # A name with a colon is a user with a password, which `vae_ops.storage` refuses.
    return (scheme, name) if separator and name and ":" not in name else None


def _is_known(scheme: str, name: str) -> bool:
    """Whether Airflow knows the connection; elsewhere than in buckets the name may be a user or an Azure container."""
    try:
        # Asked before anything is opened: the Amazon hooks take an unknown connection for the worker's own credentials.
        BaseHook.get_connection(name)
    except AirflowNotFoundException as error:
        from vae_ops.storage import BUCKET_SCHEMES

        if scheme not in BUCKET_SCHEMES:
            return False
        raise SettingsError(
            f"A URI {scheme}://{name}@… names the connection {name!r}, which Airflow does not know: add it under "
            f"Admin, Connections, or leave out '{name}@' to use the credentials in the worker's environment."
        ) from error
    return True


def _options(scheme: str, name: str) -> dict[str, Any]:
    options = _s3_options(name) if scheme.startswith("s3") else _fsspec_options(scheme, name)
    for key, value in options.items():
        if isinstance(value, str) and any(part in key for part in _SECRETIVE):
            mask_secret(value)
    return options


def _s3_options(name: str) -> dict[str, Any]:
    """Credentials as they are now: a role that the connection assumes must outlive the step (an hour by default)."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    hook = S3Hook(aws_conn_id=name)
    if "signer" in hook.service_config:
        raise SettingsError(f"The connection {name!r} signs through a service, which s3:// URIs of vae-ops cannot do.")
    session = hook.get_session()
    credentials = session.get_credentials()
    options: dict[str, Any] = {
        "endpoint_url": hook.conn_config.get_service_endpoint_url("s3"),
        "client_kwargs": {"region_name": session.region_name, "verify": hook.verify},
        "config_kwargs": hook.conn_config.extra_config.get("config_kwargs", {}),
    }
    if credentials is None:
        return {**options, "anon": True}
    frozen = credentials.get_frozen_credentials()
    return {**options, "key": frozen.access_key, "secret": frozen.secret_key, "token": frozen.token}


def _fsspec_options(scheme: str, name: str) -> dict[str, Any]:
    """The arguments with which the scheme's provider opens its filesystem."""
    from airflow.sdk.io import get_fs

    try:
        options: dict[str, Any] = get_fs(scheme, name).storage_options
        json.dumps(options)
    except (ImportError, TypeError, ValueError) as error:
        raise SettingsError(
            f"A URI {scheme}://{name}@… needs an Airflow provider whose {scheme} filesystem another process can open, "
            f"but: {error}."
        ) from error
    return options
