from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna

from lightning_hpo.storage.attributes import TrialKey
from lightning_hpo.study.launcher import halve_after_out_of_memory
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.trial.config import config_digest
from lightning_hpo.trial.outcome import Outcome, OutcomeKind


def test_config_that_was_changed_while_the_trial_ran_is_not_halved(study: optuna.Study, tmp_path: Path) -> None:
    """Its digest would be stored as that of the trial, and its classes would run."""
    trial, folder = study.ask(), TrialFolder(tmp_path)
    trial.set_user_attr(TrialKey.CONFIG_DIGEST, config_digest("model: {}\n"))
    folder.config.write_text("model: {class_path: other.Module}\ndata: {batch_size: 8}\n")
    session: Any = SimpleNamespace(
        stopping=SimpleNamespace(requested=False),
        spec=SimpleNamespace(settings=SimpleNamespace(halve_on_oom=True)),
        outboxes=SimpleNamespace(of=lambda _: SimpleNamespace(folder=folder)),
    )
    assert halve_after_out_of_memory(session, trial, Outcome(OutcomeKind.OUT_OF_MEMORY)) is None
    assert trial.user_attrs == {TrialKey.CONFIG_DIGEST: config_digest("model: {}\n")}
