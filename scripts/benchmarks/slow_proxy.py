"""A TCP proxy on this machine that delays each packet."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["SlowProxy"]

_PACKET = 65536


class SlowProxy:
    """Forwards connections to another port, and each packet of both directions late.

    Args:
        port: Port of the server on this machine.

    Attributes:
        delay_s: Seconds by which each packet is delayed from now on.
        port: Port of the proxy.
    """

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0
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
                server = socket.create_connection(("127.0.0.1", self._server))
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # one of the two has closed the connection
            while packet := source.recv(_PACKET):
                time.sleep(self.delay_s)
                target.sendall(packet)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
