"""From the name of an Airflow connection in a URI to what opens the files, and what must not happen on the way."""

import json
from typing import Any

import fsspec
import pytest

from tests.object_store import ObjectStore
from vae_ops.errors import SettingsError
from vae_ops.storage import locate
from vae_ops_provider.compatibility import AirflowFailException
from vae_ops_provider.connections import storage_options, use_connections, with_storage_options
from vae_ops_provider.operators import VaeProfileOperator


def connect(patch: pytest.MonkeyPatch, name: str, **connection: Any) -> None:
    patch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))


def test_an_amazon_connection_becomes_s3_options(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(
        monkeypatch, "lake", conn_type="aws", login="AKIA", password="hunter2",
        extra={"region_name": "eu-north-1", "endpoint_url": "http://127.0.0.1:1", "config_kwargs": {"read_timeout": 5}},
    )  # fmt: skip
    found = storage_options(["s3://lake@bucket/a", "s3://lake@other/b", "s3://bucket/c", "/d", None])
    assert found == {
        "s3://lake@": {
            "key": "AKIA", "secret": "hunter2", "token": None, "endpoint_url": "http://127.0.0.1:1",
            "client_kwargs": {"region_name": "eu-north-1", "verify": None}, "config_kwargs": {"read_timeout": 5},
        }
    }  # fmt: skip
    assert json.loads(json.dumps(found)) == found


def test_a_spec_without_connections_is_left_alone() -> None:
    spec = {"source": "s3://bucket/a", "output": "out", "store": None}
    assert with_storage_options(spec) == spec


def test_an_unknown_connection_to_a_bucket_fails_for_good_and_starts_nothing() -> None:
    task = VaeProfileOperator(task_id="t", source="s3://moon@b/x", output_dir="out", run_id="r", python="/nowhere")
    context: Any = {"dag": type("Dag", (), {"dag_id": "d"}), "run_id": "r"}
    with pytest.raises(AirflowFailException, match="names the connection 'moon', which Airflow does not know"):
        task.execute(context)


def test_elsewhere_an_unknown_name_is_a_user_or_a_container() -> None:
    assert storage_options(["sftp://somebody@host/x", "abfs://container@account.dfs.core.windows.net/x"]) == {}


def test_a_request_signer_cannot_be_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "signed", conn_type="aws", extra={"service_config": {"s3": {"signer": "S3V4RestSigner"}}})
    with pytest.raises(SettingsError, match="'signed' signs through a service"):
        storage_options(["s3://signed@bucket/x"])


def test_other_schemes_take_the_options_of_their_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.io import fs

    class Cloud(fsspec.AbstractFileSystem):
        protocol = "cloud"

    def open_cloud(conn_id: str | None, storage_options: dict[str, str] | None = None) -> Cloud:
        return Cloud(account_name=conn_id, token=object() if conn_id == "opaque" else "hunter2")

    monkeypatch.setattr(fs, "_register_filesystems", lambda: {"cloud": open_cloud})
    for name in ("azure", "opaque"):
        connect(monkeypatch, name, conn_type="generic")
    assert storage_options(["cloud://azure@x/y"]) == {"cloud://azure@": {"account_name": "azure", "token": "hunter2"}}
    with pytest.raises(SettingsError, match=r"cloud://opaque@… needs .* not JSON serializable"):
        storage_options(["cloud://opaque@x/y"])
    with pytest.raises(SettingsError, match="No filesystem registered for scheme gs"):
        storage_options(["gs://azure@x/y"])


def test_a_task_opens_what_its_connection_opens(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    object_store.location("x.txt").write_atomic(b"there")
    connect(
        monkeypatch, "here", conn_type="aws", login="nobody", password="nothing",
        extra={"endpoint_url": object_store.endpoint, "region_name": "us-east-1"},
    )  # fmt: skip
    # Only the connection leads to the server now.
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    uri = f"s3://here@{object_store.bucket}/x.txt"
    use_connections(uri)
    assert (locate(uri).read_bytes(), locate(uri).uri) == (b"there", uri)
