"""Markdown pages of the documentation, and a reader that runs their commands and code blocks."""

import argparse
import contextlib
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.project_sandbox import ROOT, ProjectSandbox
from tests.server import free_port, run_server
from tests.shell import Shell

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"\s+# .*$")
_FILE = re.compile(r"# ([\w/.-]+\.(?:py|yaml))\n")
_PACKAGE = "lightning_hpo"


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        language: Language named by the opening fence.
        text: Text between the fences.
    """

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """File that the block belongs in, if the first line is a comment with a file name."""
        named = _FILE.match(self.text)
        return named[1] if named else None

    @property
    def commands(self) -> list[str]:
        """Commands of a bash block, without trailing comments. A backslash at the end of a line continues it."""
        if self.language != "bash":
            return []
        return [_COMMENT.sub("", line) for line in self.text.replace("\\\n", " ").splitlines()]


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page, from top to bottom."""
    return [Block(*found) for found in _BLOCK.findall(page.read_text(encoding="utf-8"))]


class Reader:
    """Runs the code blocks of pages, from top to bottom, in one folder. A repeated command runs only once.

    Args:
        project: Folder to run in.
        shortened: Returns a faster form of a command, or an empty string to skip it.
    """

    def __init__(self, project: ProjectSandbox, shortened: Callable[[str], str]) -> None:
        self._project, self._shortened = project, shortened
        self._shell = Shell(project.folder, project.environment)
        self._done: set[str] = set()
        self.answers: dict[str, str] = {}

    def follow(self, page: Path) -> None:
        """Run the blocks of a page. Stop the servers and remove the patches of the page afterwards."""
        exported: dict[str, str] = {}
        with contextlib.ExitStack() as cleanup:
            for block in blocks(page):
                if block.language == "diff":
                    cleanup.enter_context(self._patched(block.text))
                elif block.file is not None:
                    (self._project.folder / block.file).write_text(block.text, encoding="utf-8")
                elif block.language == "python":
                    (self._project.folder / "block.py").write_text(block.text, encoding="utf-8")
                    self._project.run("python block.py", exported)
                for command in block.commands:
                    self._do(command, exported, cleanup)

    def _do(self, command: str, exported: dict[str, str], cleanup: contextlib.ExitStack) -> None:
        words = self._shortened(command)
        program = words.split()[0] if words.split() else ""
        if program == "export":
            exported |= dict(word.split("=", 1) for word in shlex.split(words)[1:])
        elif program == "unset":
            for name in words.split()[1:]:
                exported.pop(name, None)
        elif program == "curl":
            self.answers[command] = _curl(words.replace(":5001", f":{exported['port']}"))
        elif words.startswith("mlflow models serve"):
            exported["port"] = str(free_port())
            cleanup.enter_context(self._served(words.replace("5001", exported["port"]), exported))
        elif program and (key := f"{words} {sorted(exported.items())}") not in self._done:
            self._done.add(key)
            self.answers[command] = self._run(words.partition(" > ")[0], exported)

    def _run(self, words: str, exported: Mapping[str, str]) -> str:
        if words.startswith(("lightning-hpo ", "python scripts/")):
            return self._shell.run(shlex.split(words), exported)
        return self._project.run(words, exported)

    def close(self) -> None:
        """Stop the shell."""
        self._shell.close()

    def _served(self, words: str, exported: dict[str, str]) -> contextlib.AbstractContextManager[str]:
        command = [sys.executable, "-m", *shlex.split(words)]
        log, port = self._project.folder / "served.log", int(exported["port"])
        environment = self._project.environment | exported
        return run_server(command, port, "/ping", log, environment, self._project.folder)

    @contextlib.contextmanager
    def _patched(self, diff: str) -> Iterator[None]:
        """Provide a patched copy of the package in the folder, where Python imports it first."""
        copy = self._project.folder / _PACKAGE
        shutil.copytree(ROOT / _PACKAGE, copy)
        try:
            subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=self._project.folder, check=True)
            yield
        finally:
            shutil.rmtree(copy)


def _curl(words: str) -> str:
    """Return what the curl command would print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("curl")
    parser.add_argument("url")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-d", "--data", type=str.encode)
    given = parser.parse_args(shlex.split(words))
    headers = dict(header.split(": ") for header in given.header)
    with urllib.request.urlopen(urllib.request.Request(given.url, given.data, headers)) as answer:
        return str(answer.read().decode())
