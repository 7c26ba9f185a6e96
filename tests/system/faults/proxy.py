"""A proxy in front of an object store that makes requests fail: answers 500 and 503, slow or torn ones, dead lines.

It names every request as `points.py` names the touches of a disk, so that a fault strikes at the same place each time:
`publish: create STORE/leases/…`. It listens on loopback only. Which faults are tried is decided by `object_cases.py`.
"""

import contextlib
import http.client
import os
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.system.faults.points import Point, anonymous

__all__ = ["ANSWERS", "FREEZES", "Proxy", "proxying"]

ANSWERS = (
    "killed before a request",
    "killed in an upload",
    "killed before an answer",
    "500",
    "503",
    "line drops before a request",
    "line drops in an upload",
    "line drops before an answer",
    "line drops in an answer",
    "slow answer",
    "outage",
)
# The client stops in the middle of its work and goes on when others think it dead: its request has been answered
# meanwhile, or arrives only then.
FREEZES = ("frozen after a request", "frozen with a request on its way")
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}
_CLIENT = re.compile(r"app/pid-(\d+)")
_SLOW_SECONDS = 1.5
_THAW_SECONDS = 120.0


class Proxy:
    """What goes wrong, and what has come by.

    Attributes:
        endpoint: URL of the proxy.
        seen: The requests since `watch` was called, by name.
    """

    def __init__(self, upstream: str, endpoint: str) -> None:
        self.endpoint = endpoint
        self.upstream = urlsplit(upstream).netloc
        self.watch("")

    def watch(self, step: str, fault: Mapping[str, Any] | None = None) -> None:
        """From now on counts requests as those of `step`, and lets `{"act", "point"}` strike."""
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._fault = fault
        self._step = step
        self._frozen = 0
        self._thawed = threading.Event()
        self._struck = False
        self.seen: list[Point] = []

    def calm(self) -> None:
        """From now on nothing goes wrong."""
        self._fault = None

    def has_struck(self) -> bool:
        """Whether the fault has happened since `watch` was called."""
        return self._struck

    def freeze(self, client: int) -> None:
        """Stops a client; whoever started it lets it go on."""
        self._frozen = client
        os.kill(client, signal.SIGSTOP)

    def wait_until_thawed(self) -> None:
        """Waits for another request of the client that was stopped, which says that it goes on."""
        self._thawed.wait(_THAW_SECONDS)

    def sign_of_life(self, client: int) -> None:
        """Notes that a client has sent a request."""
        if client and client == self._frozen:
            self._thawed.set()

    def trouble_for(self, operation: str, role: str) -> str:
        """Notes a request, and says what happens to it."""
        with self._lock:
            self._counts[operation, role] += 1
            point = Point(self._step, operation, role, self._counts[operation, role])
            self.seen.append(point)
            if self._fault is None:
                return ""
            act = str(self._fault["act"])
            hit = point == Point(**self._fault["point"]) or (self._struck and act == "outage")
            self._struck = self._struck or hit
            return act if hit else ""


def name_of(method: str, path: str, headers: Mapping[str, str]) -> tuple[str, str]:
    """Operation and role of a request: the bucket's objects lie below `out`, `store` and `source`."""
    url = urlsplit(path)
    query = parse_qs(url.query, keep_blank_values=True)
    key = unquote(url.path).strip("/").partition("/")[2]
    operation = {"PUT": "write", "GET": "read", "HEAD": "look at", "DELETE": "remove"}.get(method, method.lower())
    if "list-type" in query:
        operation, key = "list", query.get("prefix", [""])[0]
    elif "delete" in query:
        operation = "remove many"
    elif "uploads" in query or "uploadId" in query or "partNumber" in query:
        operation = "upload"
    elif "x-amz-copy-source" in headers:
        operation = "copy to"
    elif method == "PUT" and ("if-none-match" in headers or "if-match" in headers):
        operation = "create"
    place, slash, rest = key.strip("/").partition("/")
    words = {"out": "OUTPUT", "store": "STORE", "source": "SOURCE"}
    return operation, words.get(place, place) + slash + anonymous(rest)


def _client_of(headers: Mapping[str, str]) -> int:
    """Process that sent a request, which its user agent tells; 0 for the harness itself."""
    found = _CLIENT.search(headers.get("user-agent", ""))
    return int(found[1]) if found else 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def handle_one_request(self) -> None:
        # Whoever is killed or hung up on leaves half a conversation.
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""

    def relay(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        client = _client_of(headers)
        self.proxy.sign_of_life(client)
        act = self.proxy.trouble_for(*name_of(self.command, self.path, headers))
        length = int(headers.get("content-length", 0))
        if act in ("killed in an upload", "line drops in an upload"):
            self.rfile.read(length // 2)
            self._hang_up(deadly=act.startswith("killed"))
            return
        body = self.rfile.read(length)
        if act in FREEZES:
            self.proxy.freeze(client)
        if act == "frozen with a request on its way":
            self.proxy.wait_until_thawed()
        if act in ("killed before a request", "line drops before a request"):
            self._hang_up(deadly=act.startswith("killed"))
        elif act in ("500", "503", "outage"):
            self._refuse(500 if act == "500" else 503)
        else:
            self._pass_on(act, headers, body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = relay  # noqa: N815

    def _pass_on(self, act: str, headers: Mapping[str, str], body: bytes) -> None:
        sent = {name: value for name, value in headers.items() if name not in _HOP_BY_HOP}
        upstream = http.client.HTTPConnection(self.proxy.upstream)
        with contextlib.closing(upstream):
            upstream.request(self.command, self.path, body, {**sent, "content-length": str(len(body))})
            answer = upstream.getresponse()
            data = answer.read()
        if act in ("killed before an answer", "line drops before an answer"):
            self._hang_up(deadly=act.startswith("killed"))
            return
        if act == "slow answer":
            threading.Event().wait(_SLOW_SECONDS)
        found = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
        length = answer.getheader("content-length") if self.command == "HEAD" else str(len(data))
        self._answer(answer.status, found, length, data[: len(data) // 2] if act == "line drops in an answer" else data)
        if act == "line drops in an answer":
            self._hang_up(deadly=False)

    def _answer(self, status: int, headers: Mapping[str, str], length: str | None, data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None and status != 204:
            self.send_header("content-length", length)
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, status: int) -> None:
        code = "InternalError" if status == 500 else "SlowDown"
        data = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        length = str(len(data))
        self._answer(status, {"content-type": "application/xml"}, length, b"" if self.command == "HEAD" else data)

    def _hang_up(self, *, deadly: bool) -> None:
        if deadly:
            os.kill(_client_of({"user-agent": self.headers.get("user-agent", "")}), signal.SIGKILL)
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxying(upstream: str) -> Iterator[Proxy]:
    """A proxy on loopback, for the length of a `with` block."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    proxy = Proxy(upstream, f"http://127.0.0.1:{server.server_address[1]}")
    handler.proxy = proxy  # type: ignore[attr-defined]
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    serving.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
