"""Studies whose refits are complete, which the tests of combined models share."""

from collections.abc import Iterator
from typing import Any

import pytest

from lightning_hpo.cli import main
from tests.conftest import Copy
from tests.study_sandbox import StudySandbox, ready_sandbox
from tests.tiny import tiny_config, write_tiny_corpus, write_tiny_encoder

FITTED: dict[str, dict[str, Any]] = {
    "criteria": tiny_config("CriteriaAgent", "CriteriaDataModule", threshold="fitted"),
    "joint": tiny_config("JointAgent", "JointDataModule", threshold="fitted", decoding={"null_policy": "calibrated"}),
}


def refit(sandbox: StudySandbox, study: str, *flags: str) -> int:
    where = ("--storage", sandbox.storage, "--tracking_uri", sandbox.tracking_uri)
    return main(["refit", study, "--trials", "1", *where, *flags])


def register(sandbox: StudySandbox, study: str, *flags: str) -> int:
    where = ("--storage", sandbox.storage, "--tracking_uri", sandbox.tracking_uri)
    return main(["register", "--study", study, *where, *flags])


@pytest.fixture(scope="module")
def refitted(tmp_path_factory: pytest.TempPathFactory, ready_databases: Copy) -> Iterator[StudySandbox]:
    """Tune two agents on a tiny corpus, as `criteria-1` and `joint-1`, and refit the trial with three seeds."""
    with pytest.MonkeyPatch.context() as patch:
        sandbox = ready_sandbox(tmp_path_factory.mktemp("refitted"), patch, ready_databases)
        write_tiny_encoder(sandbox.folder / "encoder")
        write_tiny_corpus(sandbox.folder)
        for agent, config in FITTED.items():
            flags = ("--study.n_trials", "1", "--study.register", "false", "--trainer.max_epochs", "1")
            assert sandbox.tune(f"{agent}-1", *flags, config=config) == 0
            assert refit(sandbox, f"{agent}-1", "--seeds", "3", "--no-test") == 0
        yield sandbox
