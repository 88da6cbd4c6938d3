"""A page of the documentation, and a reader who does what pages say."""

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
_FILE = re.compile(r"# ([\w/.-]+\.(?:py|yaml))\n")
_PACKAGE = "lightning_hpo"


@dataclass(frozen=True)
class Block:
    """What stands between two fences.

    Attributes:
        language: As the fence says it.
        text: All between.
    """

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that it is to be put into, if its first line names one."""
        named = _FILE.match(self.text)
        return named[1] if named else None

    @property
    def commands(self) -> list[str]:
        """The command lines of a bash block; a line that ends in a backslash goes on."""
        return self.text.replace("\\\n", " ").splitlines() if self.language == "bash" else []


def blocks(page: Path) -> list[Block]:
    """The page's blocks, from top to bottom."""
    return [Block(*found) for found in _BLOCK.findall(page.read_text(encoding="utf-8"))]


class Reader:
    """Does what pages say, from top to bottom, in one folder; what a page before has said already is not done again.

    Args:
        project: The folder.
        shortened: Gives what is run in the place of a command: less of the same, or nothing.
    """

    def __init__(self, project: ProjectSandbox, shortened: Callable[[str], str]) -> None:
        self._workplace, self._shortened = project, shortened
        self._shell = Shell(project.folder, project.environment)
        self._done: set[str] = set()
        self.answers: dict[str, str] = {}

    def follow(self, page: Path) -> None:
        """Do what a page says; what it starts and patches is gone afterwards."""
        exported: dict[str, str] = {}
        with contextlib.ExitStack() as until_its_end:
            for block in blocks(page):
                if block.language == "diff":
                    until_its_end.enter_context(self._patched(block.text))
                elif block.file is not None:
                    (self._workplace.folder / block.file).write_text(block.text, encoding="utf-8")
                elif block.language == "python":
                    (self._workplace.folder / "block.py").write_text(block.text, encoding="utf-8")
                    self._workplace.run("python block.py", exported)
                for command in block.commands:
                    self._do(command, exported, until_its_end)

    def _do(self, command: str, exported: dict[str, str], until_its_end: contextlib.ExitStack) -> None:
        words = self._shortened(command)
        program = words.split()[0] if words.split() else ""
        if program == "export":
            exported |= dict(word.split("=", 1) for word in shlex.split(words)[1:])
        elif program == "unset":
            for name in words.split()[1:]:
                exported.pop(name, None)
        elif program == "curl":
            self.answers[command] = _asked(words.replace(":5001", f":{exported['port']}"))
        elif words.startswith("mlflow models serve"):
            exported["port"] = str(free_port())
            until_its_end.enter_context(self._served(words.replace("5001", exported["port"]), exported))
        elif program and (key := f"{words} {sorted(exported.items())}") not in self._done:
            self._done.add(key)
            self.answers[command] = self._run(words.partition(" > ")[0], exported)

    def _run(self, words: str, exported: Mapping[str, str]) -> str:
        program, *arguments = shlex.split(words)
        if program == "lightning-hpo":
            return self._shell.run(arguments, exported)
        return self._workplace.run(words, exported)

    def close(self) -> None:
        """End what the reader has started."""
        self._shell.close()

    def _served(self, words: str, exported: dict[str, str]) -> contextlib.AbstractContextManager[str]:
        command = [sys.executable, "-m", *shlex.split(words)]
        log, port = self._workplace.folder / "served.log", int(exported["port"])
        environment = self._workplace.environment | exported
        return run_server(command, port, "/ping", log, environment, self._workplace.folder)

    @contextlib.contextmanager
    def _patched(self, diff: str) -> Iterator[None]:
        """A copy of the package in the folder, where Python finds it first, with a patch."""
        copy = self._workplace.folder / _PACKAGE
        shutil.copytree(ROOT / _PACKAGE, copy)
        try:
            subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=self._workplace.folder, check=True)
            yield
        finally:
            shutil.rmtree(copy)


def _asked(words: str) -> str:
    """What curl prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("curl")
    parser.add_argument("url")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-d", "--data", type=str.encode)
    given = parser.parse_args(shlex.split(words))
    headers = dict(header.split(": ") for header in given.header)
    with urllib.request.urlopen(urllib.request.Request(given.url, given.data, headers)) as answer:
        return str(answer.read().decode())
