"""An HTTP proxy in front of a tracking server, which replaces answers as a test wants."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Answer", "LyingServer", "Request"]

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "server", "date", "keep-alive"}


@dataclass(frozen=True)
class Request:
    """A request of a client: method, path with its query, and body."""

    method: str
    path: str
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """An answer to a request.

    Attributes:
        status: Status of HTTP.
        body: Its body.
        headers: Its headers, without those that the proxy sets itself.
        length: Length that the header claims; None for that of the body.
        endless: Repeat the body until the client closes the connection.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    endless: bool = False


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients close connections in the middle of an answer."""


class LyingServer:
    """Forwards requests to a server on this machine, and changes its answers.

    Args:
        port: Port of the server.

    Attributes:
        lie: Returns what the client gets, given the request and the server's honest answer.
        seen: Requests and honest answers since the list was last cleared.
        port: Port of the proxy.
    """

    def __init__(self, port: int) -> None:
        self.lie: Callable[[Request, Answer], Answer] = honest
        self.seen: list[tuple[Request, Answer]] = []
        self._server = port
        self._http = _QuietServer(("127.0.0.1", 0), self._handler())
        self.port = int(self._http.server_address[1])

    @property
    def uri(self) -> str:
        """Address of the proxy."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator["LyingServer"]:
        """Accept connections within the block."""
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()

    @contextmanager
    def lying(self, lie: Callable[[Request, Answer], Answer]) -> Iterator[None]:
        """Change answers within the block."""
        self.lie = lie
        try:
            yield
        finally:
            self.lie = honest

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _answer(self) -> None:
                request = Request(self.command, self.path, self._body())
                answer = proxy.lie(request, proxy.forwarded(request, dict(self.headers)))
                with suppress(OSError):  # the client has seen enough
                    self._send(answer)

            def _body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def _send(self, answer: Answer) -> None:
                length = len(answer.body) if answer.length is None else answer.length
                self.send_response_only(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.endless:
                    self.send_header("Connection", "close")
                else:
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(answer.body)
                while answer.endless:
                    self.wfile.write(answer.body)
                self.close_connection = self.close_connection or answer.endless or length != len(answer.body)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815 - names of the parent

            def log_message(self, format: str, *arguments: object) -> None:
                """Print nothing."""

        return Handler

    def forwarded(self, request: Request, headers: dict[str, str]) -> Answer:
        """Return the server's honest answer."""
        kept = {name: value for name, value in headers.items() if name.lower() not in {*_HOP_BY_HOP, "accept-encoding"}}
        connection = http.client.HTTPConnection("127.0.0.1", self._server, timeout=60)
        try:
            connection.request(request.method, request.path, request.body, kept)
            reply = connection.getresponse()
            own = {name: value for name, value in reply.getheaders() if name.lower() not in _HOP_BY_HOP}
            answer = Answer(reply.status, reply.read(), own)
        finally:
            connection.close()
        self.seen.append((request, answer))
        return answer


def honest(request: Request, answer: Answer) -> Answer:
    """Change nothing."""
    del request
    return replace(answer)
