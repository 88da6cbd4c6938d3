import socket
from pathlib import Path

import pytest

from lightning_hpo.data import hub
from lightning_hpo.data.hub import load_tokenizer
from lightning_hpo.exceptions import InputError


def _unreachable(*_: object) -> None:
    raise socket.gaierror


def test_folder_needs_no_hub(tmp_path: Path) -> None:
    assert hub.local_files_only(str(tmp_path))


def test_hub_is_not_used_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", _unreachable)
    assert hub.local_files_only("some/encoder")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    assert not hub.local_files_only("some/encoder")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.local_files_only("some/encoder")


def test_hub_is_used_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    monkeypatch.setattr(socket, "getaddrinfo", _unreachable)
    assert not hub.local_files_only("some/encoder")


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such", "a/b/c"])
def test_missing_folder_is_an_error(name: str) -> None:
    with pytest.raises(InputError, match=r"--model\.name: the folder '.*' does not exist"):
        load_tokenizer(name)


def test_missing_encoder_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_hpo.data.hub.local_files_only", lambda _: True)
    with pytest.raises(InputError, match=r"--model\.name: no tokenizer can be loaded from 'no-such/encoder'") as caught:
        load_tokenizer("no-such/encoder")
    assert "\n" not in str(caught.value)


def test_folder_without_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--model\.name: no tokenizer"):
        load_tokenizer(str(tmp_path))
