from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lightning_hpo.study.encoder_revisions import resolve_revisions
from tests.hub import commit_of, write_hub

ELECTRA, ROBERTA = "google/electra-base-discriminator", "roberta-base"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write_hub(folder, ["I lie awake every night."] * 50)
    return folder


@pytest.fixture(autouse=True)
def _offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def _config(name: str, revision: str | None = None) -> dict[str, Any]:
    arguments = {"name": name, "revision": revision}
    return {"model": {"class_path": "lightning_hpo.agents.CriteriaAgent", "init_args": arguments}}


def test_every_encoder_has_its_own_commit() -> None:
    found, problems = resolve_revisions(_config(ROBERTA), {"model.name": (ROBERTA, ELECTRA)}, {})
    assert found == {ROBERTA: commit_of(ROBERTA), ELECTRA: commit_of(ELECTRA)}
    assert problems == []


def test_folder_has_no_commit(tmp_path: Path) -> None:
    assert resolve_revisions(_config(str(tmp_path)), {}, {}) == ({}, [])


def test_other_modules_have_no_encoder(foreign_config: Mapping[str, Any]) -> None:
    assert resolve_revisions(foreign_config, {}, {}) == ({}, [])


def test_stored_commit_is_kept_when_the_branch_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def resolve(name: str, revision: str | None) -> str | None:
        asked.append(revision)
        return revision

    monkeypatch.setattr("lightning_hpo.study.encoder_revisions.resolve_revision", resolve)
    assert resolve_revisions(_config(ROBERTA), {}, {ROBERTA: "1" * 40}) == ({ROBERTA: "1" * 40}, [])
    assert asked == ["1" * 40]


def test_one_revision_for_several_encoders_is_refused() -> None:
    _, problems = resolve_revisions(_config(ROBERTA, "main"), {"model.name": (ROBERTA, ELECTRA)}, {})
    [line] = problems
    assert line.startswith("--model.revision: got main, but the study has 2 encoders; omit it, and each stays at its ")


def test_another_revision_than_the_study_began_with_is_refused() -> None:
    _, problems = resolve_revisions(_config(ROBERTA, "main"), {}, {ROBERTA: "1" * 40})
    assert problems == [f"--model.revision: got main, but the study began with {'1' * 40}; use that"]


def test_each_missing_encoder_is_a_line() -> None:
    _, problems = resolve_revisions(_config("no/such"), {"model.name": (ROBERTA, "nor/this")}, {})
    assert [line.partition(", ")[0] for line in problems] == [
        "--model.name: got 'no/such'",
        "search_space: with the encoder nor/this: --model.name: got 'nor/this'",
    ]
