"""Runs `lightning-hpo` commands and scripts one after another in one process, so that modules are imported only once.

As a program, this module reads one JSON line per command (words, exported variables) and writes the exit code.
"""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class Shell:
    """Process that runs commands in a given folder and environment.

    Args:
        folder: Working directory.
        environment: Environment variables of the process.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._output = folder / "output.txt"
        command = [sys.executable, "-P", __file__, str(self._output)]
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, words: Sequence[str], exported: Mapping[str, str]) -> str:
        """Run `lightning-hpo ...` or `python SCRIPT ...`, which must succeed, and return its output."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([list(words), dict(exported)]) + "\n")
        self._process.stdin.flush()
        code = self._process.stdout.readline().strip()
        output = self._output.read_text(encoding="utf-8")
        assert code == "0", f"{' '.join(words)}: {code}\n{output}"
        return output

    def close(self) -> None:
        """Close the input of the process and wait for it to exit."""
        self._process.communicate()


def _exit_code(words: list[str]) -> int:
    from lightning_hpo.cli import main

    if words[0] == "lightning-hpo":
        return main(words[1:])
    sys.argv = words[1:]
    try:
        runpy.run_path(words[1], run_name="__main__")
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def _main() -> None:
    codes = os.fdopen(os.dup(1), "w", encoding="utf-8")
    inherited, path = dict(os.environ), Path(sys.argv[1])
    for line in sys.stdin:
        words, exported = json.loads(line)
        os.environ.clear()
        os.environ.update(inherited | exported)
        with path.open("w", encoding="utf-8") as output:
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
            code = _exit_code(words)
            sys.stdout.flush()
            sys.stderr.flush()
        print(code, file=codes, flush=True)


if __name__ == "__main__":
    _main()
