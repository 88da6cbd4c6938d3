"""A study of two complete trials, none of them registered, which the tests of registering share."""

from collections.abc import Iterator
from typing import Any

import optuna
import pytest

from lightning_hpo.registry.promote import ALIAS
from tests.conftest import Copy
from tests.study_sandbox import StudySandbox, ready_sandbox
from tests.tiny import tiny_config, write_tiny_corpus, write_tiny_encoder


@pytest.fixture(scope="package")
def tiny(tmp_path_factory: pytest.TempPathFactory, ready_databases: Copy) -> Iterator[StudySandbox]:
    """Tune the criteria agent on a tiny corpus. Both trials keep their checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        sandbox = ready_sandbox(tmp_path_factory.mktemp("tiny"), patch, ready_databases)
        write_tiny_encoder(sandbox.folder / "encoder")
        write_tiny_corpus(sandbox.folder)
        flags = ("--study.n_trials", "2", "--study.register", "false", "--study.pruner", "NopPruner")
        assert sandbox.tune("tiny", *flags, config=tiny_config("CriteriaAgent", "CriteriaDataModule")) == 0
        yield sandbox


def copy_study(sandbox: StudySandbox, name: str, **changed: Any) -> tuple[optuna.Study, int]:
    """Copy the study under another agent's name, and return the number of the trial that is not the best."""
    study = optuna.load_study(study_name="tiny", storage=sandbox.storage)
    copy = optuna.create_study(study_name=name, storage=sandbox.storage, direction="maximize")
    for key, value in {**study.user_attrs, "agent": name}.items():
        copy.set_user_attr(key, value)
    for trial in study.trials:
        for key, value in {"collapsed": False, **changed}.items():
            trial.set_user_attr(key, value)
        copy.add_trial(trial)
    return copy, 1 - copy.best_trial.number


def production(sandbox: StudySandbox, agent: str) -> str:
    """Return the version that the alias points to."""
    return str(sandbox.client.get_model_version_by_alias(f"{agent}-best-model", ALIAS).version)
