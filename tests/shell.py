"""Types commands of `lightning-hpo`, one after another, in one process: what they import is imported once.

As a program it reads a command and what is exported as a line of JSON, and writes its exit code as a line.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class Shell:
    """A process with an environment of its own that runs commands.

    Args:
        folder: Where they are typed.
        environment: The process's.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._said = folder / "said.txt"
        command = [sys.executable, "-P", __file__, str(self._said)]
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, words: Sequence[str], exported: Mapping[str, str]) -> str:
        """Run a command, which has to succeed, and give what it says."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([list(words), dict(exported)]) + "\n")
        self._process.stdin.flush()
        code = self._process.stdout.readline().strip()
        said = self._said.read_text(encoding="utf-8")
        assert code == "0", f"{' '.join(words)}: {code}\n{said}"
        return said

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _main() -> None:
    from lightning_hpo.cli import main

    codes = os.fdopen(os.dup(1), "w", encoding="utf-8")
    outside = dict(os.environ)
    for line in sys.stdin:
        words, exported = json.loads(line)
        os.environ.clear()
        os.environ.update(outside | exported)
        with Path(sys.argv[1]).open("w", encoding="utf-8") as said:
            for stream in (1, 2):
                os.dup2(said.fileno(), stream)
            code = main(words)
            sys.stdout.flush()
            sys.stderr.flush()
        print(code, file=codes, flush=True)


if __name__ == "__main__":
    _main()
