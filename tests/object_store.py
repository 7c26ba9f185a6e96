"""An object store on this machine: a moto server on loopback in a process of its own, and a bucket per test.

The fixtures reach every test through `tests/conftest.py`. Whoever starts processes hands them `ObjectStore.environment`
(in this process it is set already), so that plain `s3://` URIs lead to the server there as well; a proxy in front of
the server is another endpoint in that environment.
"""

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from fsspec import get_filesystem_class

from vae_ops.storage import Location, locate

__all__ = ["ObjectStore", "moto_endpoint", "moto_server", "object_store", "reaching"]

# The server ends with its stdin, so that not even a killed test leaves one behind.
_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""
_buckets = itertools.count()


@dataclass(frozen=True)
class ObjectStore:
    """An empty bucket.

    Attributes:
        endpoint: URL of the server.
        bucket: Name of the bucket.
    """

    endpoint: str
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment for `s3://` to lead here; the credentials are none."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "NO_PROXY": "127.0.0.1",
        }

    def uri(self, *names: str) -> str:
        """URI of something in the bucket."""
        return "/".join(("s3:/", self.bucket, *names))

    def location(self, *names: str) -> Location:
        """The same for the engine."""
        return locate(self.uri(*names))

    def keys(self) -> list[str]:
        """Every object in the bucket, sorted."""
        return sorted(path.partition("/")[2] for path in self.location().fs.find(self.bucket))


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """A moto server on loopback for the length of a `with` block, by its URL."""
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.stdin.close()


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """URL of a moto server on loopback."""
    with moto_server() as endpoint:
        yield endpoint


@contextlib.contextmanager
def reaching(store: ObjectStore) -> Iterator[ObjectStore]:
    """For the length of a `with` block, `s3://` leads to the store's endpoint in this process too."""
    filesystem = get_filesystem_class("s3")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        # fsspec keeps filesystems by their arguments, and the endpoint is none of them.
        filesystem.clear_instance_cache()
        yield store
    filesystem.clear_instance_cache()


@pytest.fixture
def object_store(moto_endpoint: str) -> Iterator[ObjectStore]:
    """An empty bucket that `s3://` URIs reach from here and, with its environment, from other processes."""
    with reaching(ObjectStore(moto_endpoint, f"bucket-{next(_buckets)}")) as store:
        store.location().fs.mkdir(store.bucket)
        yield store
