import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.trial.outcome import RUN_STATUS, Outcome, OutcomeKind, load_outcome, save_outcome

RESUMED = (OutcomeKind.INTERRUPTED, OutcomeKind.CRASHED, OutcomeKind.OUT_OF_MEMORY)


@pytest.mark.parametrize("kind", list(OutcomeKind))
def test_outcome_is_saved_unless_the_trial_is_resumed(tmp_path: Path, kind: OutcomeKind) -> None:
    outcome = Outcome(kind, value=0.5, epoch=1, reason="x", traceback="y", runtime_s=2.0, model_uri="models:/m-1")
    save_outcome(TrialFolder(tmp_path), outcome)
    assert load_outcome(TrialFolder(tmp_path)) == (None if kind in RESUMED else outcome)


def test_outcome_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    fields = {"ending": "pruned", "value": None, "epoch": 3, "reason": "", "traceback": "", "runtime_s": 1.5}
    TrialFolder(tmp_path).outcome.write_text(json.dumps(fields | {"collapsed": False, "model_uri": None}))
    assert load_outcome(TrialFolder(tmp_path)) == Outcome(OutcomeKind.PRUNED, epoch=3, runtime_s=1.5)


@pytest.mark.parametrize(
    "damage",
    [
        *("", "\0" * 20, "[]", "{}", '{"ending": "other"}', '{"ending": "pruned", "other": 1}', "[" * 100_000),
        *('{"ending": ["pruned"]}', '{"ending": "pruned", "epoch": "3"}', '{"ending": "pruned", "epoch": 1.5}'),
        *('{"ending": "complete", "value": NaN}', '{"ending": "complete", "value": "0.9"}'),
        *('{"ending": "complete", "value": 1e999}', '{"ending": "failed", "reason": null}'),
        *('{"ending": "complete", "collapsed": "no"}', '{"ending": "complete", "model_uri": {"a": 1}}'),
    ],
)
def test_damaged_outcome_counts_as_none(tmp_path: Path, damage: str) -> None:
    TrialFolder(tmp_path).outcome.write_text(damage)
    assert load_outcome(TrialFolder(tmp_path)) is None


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_no_file_in_place_of_an_outcome_counts_as_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(TrialFolder(tmp_path).outcome)
    assert load_outcome(TrialFolder(tmp_path)) is None


def test_every_state_has_its_own_run_status() -> None:
    assert set(RUN_STATUS) == set(TrialState)
    assert len(set(RUN_STATUS.values())) == len(TrialState)
