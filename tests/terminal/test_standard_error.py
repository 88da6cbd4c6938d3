import io
import os
import sys

import pytest

from lightning_hpo.terminal.standard_error import lasting_stderr


class _Closed(io.StringIO):
    """A stream without a descriptor, every write to which fails."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise BrokenPipeError


def test_writes_to_a_pipe_without_a_reader_are_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", buffering=1) as stream, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stream)
        with lasting_stderr():
            print("read", file=sys.stderr)
            assert os.read(reading, 100) == b"read\n"
            os.close(reading)
            for _ in range(3):
                print("discarded", file=sys.stderr, flush=True)
            os.write(stream.fileno(), b"by a library in C\n")
        assert sys.stderr is stream


def test_stream_without_a_descriptor_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", _Closed())
    with lasting_stderr():
        print("discarded", file=sys.stderr, flush=True)


def test_other_attributes_are_those_of_the_stream(capsys: pytest.CaptureFixture[str]) -> None:
    with lasting_stderr():
        print("shown", file=sys.stderr)
        assert not sys.stderr.isatty()
        assert sys.stderr.encoding
    assert capsys.readouterr().err == "shown\n"
