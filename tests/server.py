"""HTTP servers that run for the length of a test."""

import contextlib
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.study_sandbox import wait_for


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def run_server(
    command: Sequence[str],
    port: int,
    health: str,
    log: Path,
    environment: Mapping[str, str],
    folder: Path | None = None,
) -> Iterator[str]:
    """Start a command that serves on a port, wait for status 200 at `health`, yield the URL, and stop the server."""
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, env=environment, cwd=folder
        )

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(f"{address}{health}", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    try:
        wait_for(is_ready)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
