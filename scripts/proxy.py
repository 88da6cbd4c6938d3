"""A TCP proxy in front of a server on this machine, which behaves as badly as a test wants."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

__all__ = ["Proxy"]

Mode = Literal["through", "slow", "silent", "refusing", "503", "HTML"]

_PACKET = 65536
_REPLIES: dict[str, tuple[str, str]] = {
    "503": ("503 Service Unavailable", "no server is available"),
    "HTML": ("200 OK", "<!doctype html><title>sign in</title>"),
}


class Proxy:
    """Forwards connections to another port of this machine.

    Args:
        port: Port of the server.

    Attributes:
        mode: What happens to each packet from now on: it goes `through` or is `slow`, the proxy is `silent` or is
            `refusing` connections, or it answers each packet of a client with status `503` or with an `HTML` page.
        delay_s: Seconds by which a `slow` packet is delayed.
        port: Port of the proxy.
    """

    def __init__(self, port: int) -> None:
        self.mode: Mode = "through"
        self.delay_s = 3.0
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    @contextmanager
    def running(self) -> Iterator[None]:
        """Accept connections within the block."""
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield
        finally:
            self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener has been closed
            while True:
                client, _ = self._listener.accept()
                if self.mode == "refusing":
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._server))
                for source, target in ((client, server), (server, client)):
                    arguments = (source, target, source is client)
                    threading.Thread(target=self._forward, args=arguments, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        with suppress(OSError):  # one of the two has closed the connection
            while packet := source.recv(_PACKET):
                mode = self.mode
                if mode in _REPLIES and is_request:
                    source.sendall(_reply(*_REPLIES[mode]))
                    break
                if mode in ("silent", "refusing"):
                    continue
                time.sleep(self.delay_s if mode == "slow" else 0.0)
                target.sendall(packet)
        for end in (target, source):
            with suppress(OSError):
                end.shutdown(socket.SHUT_WR)


def _reply(status: str, body: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return (head + body).encode()
