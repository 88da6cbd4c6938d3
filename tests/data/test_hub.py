import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from lightning_hpo.agents.network.encoder import load_encoder
from lightning_hpo.data import hub
from lightning_hpo.data.hub import encoder_folder, load_tokenizer, resolve_revision
from lightning_hpo.exceptions import InputError
from tests.hub import ENCODERS, Files, Hub, commit_of, repositories, write_cache

DEBERTA, ELECTRA, ROBERTA = "microsoft/deberta-v3-base", "google/electra-base-discriminator", "roberta-base"
TEXTS = [f"I {verb} awake every night, and number {number} is sad." for verb in ("lie", "sit") for number in range(50)]


@pytest.fixture(scope="module")
def files() -> dict[str, Files]:
    return repositories(TEXTS)


@pytest.fixture
def served(files: dict[str, Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process uses, with an empty cache."""
    with Hub({name: dict(content) for name, content in files.items()}) as server:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def _unreachable(*_: object) -> None:
    raise socket.gaierror


def _without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", _unreachable)


def _error(name: str, revision: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_tokenizer(name, revision)
    [line] = caught.value.problems
    assert "\n" not in line
    return line


def test_folder_needs_no_hub(tmp_path: Path) -> None:
    assert hub.local_files_only(str(tmp_path))
    assert resolve_revision(str(tmp_path)) is None


def test_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "encoder").mkdir()
    assert encoder_folder("~/encoder") == tmp_path / "encoder"
    assert resolve_revision("~/encoder") is None


def test_hub_is_not_used_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    _without_network(monkeypatch)
    assert hub.local_files_only("some/encoder")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    assert not hub.local_files_only("some/encoder")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.local_files_only("some/encoder")


def test_hub_is_used_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    monkeypatch.setattr(socket, "getaddrinfo", _unreachable)
    assert not hub.local_files_only("some/encoder")


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_of_the_search_spaces_is_downloaded_and_loaded(name: str, served: Hub) -> None:
    assert resolve_revision(name) == commit_of(name)
    tokenizer, encoder = load_tokenizer(name), load_encoder(name)
    assert len(tokenizer) <= encoder.config.vocab_size
    words = tokenizer("I lie awake", "every night", return_tensors="pt")
    assert words["input_ids"].shape[1] >= 7
    assert torch.isfinite(encoder(**words).last_hidden_state).all()


def test_safetensors_are_preferred_and_only_one_kind_of_weights_is_downloaded(served: Hub) -> None:
    encoder_folder(ROBERTA)
    downloaded = {path.rsplit("/", 1)[1] for path in served.requests if path.startswith("GET")}
    assert "model.safetensors" in downloaded
    assert "pytorch_model.bin" not in downloaded


def test_commit_in_the_cache_needs_no_request(served: Hub) -> None:
    commit = resolve_revision(DEBERTA)
    served.requests.clear()
    assert encoder_folder(DEBERTA, commit).name == commit
    load_tokenizer(DEBERTA, commit)
    load_encoder(DEBERTA, revision=commit)
    assert served.requests == []


def test_commit_stays_when_the_branch_moves(served: Hub) -> None:
    before = resolve_revision(ELECTRA)
    served.commits[ELECTRA] = "1" * 40
    assert resolve_revision(ELECTRA) == "1" * 40
    assert resolve_revision(ELECTRA, before) == before


@pytest.mark.parametrize("offline", [True, False])
def test_cache_is_used_without_a_network(offline: bool, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = resolve_revision(DEBERTA)
    served.requests.clear()
    _without_network(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    assert resolve_revision(DEBERTA) == resolve_revision(DEBERTA, commit) == commit
    why = "HF_HUB_OFFLINE is set" if offline else f"{served.url} cannot be reached"
    assert f"{why} while its files are not all in the cache" in _error(ELECTRA)
    assert served.requests == []


def test_download_that_was_interrupted_is_completed(served: Hub) -> None:
    partial = {name: served.repositories[DEBERTA][name] for name in ("config.json", "spm.model")}
    write_cache(Path(constants.HF_HUB_CACHE), DEBERTA, partial)
    load_encoder(DEBERTA, revision=commit_of(DEBERTA))
    assert any(request.startswith("GET") and "pytorch_model.bin" in request for request in served.requests)


def test_sharded_weights_are_complete_with_all_shards(served: Hub) -> None:
    files = served.repositories[ROBERTA]
    index = b'{"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    del files["pytorch_model.bin"]
    files |= {"model.safetensors.index.json": index, "model-1.safetensors": b"1", "model-2.safetensors": b"2"}
    del files["model.safetensors"]
    folder = encoder_folder(ROBERTA)
    assert [(folder / f"model-{number}.safetensors").read_bytes() for number in (1, 2)] == [b"1", b"2"]


def test_renamed_repository_is_followed(served: Hub) -> None:
    served.moved["bert-old"] = ROBERTA
    assert resolve_revision("bert-old") == commit_of(ROBERTA)


def test_gated_encoder_needs_a_login(served: Hub) -> None:
    served.gated.add(ROBERTA)
    assert f"'{ROBERTA}' needs a login: accept its conditions on {served.url}/{ROBERTA}, then " in _error(ROBERTA)


def test_missing_encoder_and_missing_revision_are_told_apart(served: Hub) -> None:
    assert "--model.name: got 'no-such/encoder', which is not a folder, and the Hugging" in _error("no-such/encoder")
    assert _error(ROBERTA, "v9") == f"--model.revision: got 'v9', which {ROBERTA} does not have; use main"


def test_repository_without_a_config_is_an_error(served: Hub) -> None:
    del served.repositories[ROBERTA]["config.json"]
    assert f"'{ROBERTA}' has no config.json on the hub" in _error(ROBERTA)


def test_broken_hub_is_reported_as_that_and_the_cache_is_used(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the client waits between its retries
    commit = resolve_revision(ROBERTA)
    served.broken = True
    assert resolve_revision(ROBERTA) == commit
    assert f"'{ELECTRA}' cannot be downloaded from {served.url}, and is not in the cache: " in _error(ELECTRA)
    assert "503" in _error(ELECTRA)


def test_pickled_objects_are_not_loaded(served: Hub, tmp_path: Path) -> None:
    evil = io.BytesIO()
    torch.save({"weight": _Touch(tmp_path / "touched")}, evil)
    served.repositories[ELECTRA]["pytorch_model.bin"] = evil.getvalue()
    with pytest.raises(InputError, match=r"--model\.name: got .*, whose weights cannot be read as tensors"):
        load_encoder(ELECTRA)
    assert not (tmp_path / "touched").exists()


class _Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such", "a/b/c", "not a name!", "a/", ""])
def test_missing_folder_is_an_error(name: str) -> None:
    assert f"--model.name: got {name!r}, which is not a folder, and no hub id; " in _error(name)


def test_folder_without_tokenizer_is_an_error(tmp_path: Path) -> None:
    assert _error(str(tmp_path)).startswith("--model.name: no tokenizer")
