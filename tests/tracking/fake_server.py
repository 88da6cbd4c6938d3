"""An HTTP server that answers as a test wants, in place of MLflow or of a proxy in front of it."""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, str] | None
"""Status and body; None closes the connection, as MLflow does when it refuses an upload before it has read all."""

PAGE = "<!doctype html><title>sign in</title>"


def as_json(status: int, **fields: Any) -> Reply:
    """Return a reply with a JSON body, as MLflow sends it."""
    return status, json.dumps(fields)


@contextlib.contextmanager
def fake_server(reply: Callable[[str], Reply]) -> Iterator[str]:
    """Serve replies to paths, and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = reply(self.path)
            if answer is None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                return
            status, body = answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - names of the parent

        def log_message(self, format: str, *arguments: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
