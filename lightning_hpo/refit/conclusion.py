"""Last steps of a refit: print the scores, score the winner on the test split once, and record the result."""

import json
import time
from multiprocessing.connection import Connection
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_hpo.agents.baselines import baselines_of
from lightning_hpo.agents.post_scores import PostScores, score_of, write_post_scores
from lightning_hpo.callbacks.checkpoint_files import is_whole
from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.refit.intervals import estimate
from lightning_hpo.refit.members import seeds_with_weights
from lightning_hpo.refit.result import RefitResult
from lightning_hpo.refit.summary import print_candidates, print_models, print_test_score
from lightning_hpo.storage.attributes import folder_of
from lightning_hpo.storage.objective import BASELINE_METRIC
from lightning_hpo.study.lines import waiting
from lightning_hpo.study.retention import CheckpointRetention
from lightning_hpo.study.workers import ProcessExit, Workers
from lightning_hpo.study_folder import TrialFolder, write_whole
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.config import check_config
from lightning_hpo.trial.trainer import rebuild_trial

__all__ = ["conclude"]

_FILE = "refit.json"


def conclude(
    result: RefitResult, tracker: Tracker, parent: str, workers: Workers, *, test: bool, keep: int | None = None
) -> None:
    """Print the result of a refit, and record it in the parent run.

    With `test`, the test split is scored in a new process, unless an earlier call has done so. Then the winner is
    known, and the weights of the other candidates are deleted. `keep` limits the seeds of the winner that keep theirs.

    Raises:
        LightningHpoError: If the test split cannot be scored.
    """
    _score_baselines(result, workers)
    print_candidates(result)
    if test and result.tested is None:
        _score_test_split(result, workers)
    if result.tested is not None or keep is not None:
        _delete_weights(result, tracker, keep)
    print_models(result)
    print_test_score(result)
    text = json.dumps(result.as_dict(), indent=2)
    write_whole(folder_of(result.study).path / _FILE, text)
    tracker.log_text(parent, text, _FILE)
    tracker.log_metrics(parent, result.metrics(), step=0, time_ms=time.time_ns() // 1_000_000)
    tracker.set_status(parent, "FINISHED", {"winner": f"trial {result.winner.trial}"})


def _score_baselines(result: RefitResult, workers: Workers) -> None:
    """Score the baselines on the validation split by post, once."""
    folder = folder_of(result.study)
    if result.monitor != BASELINE_METRIC or folder.baselines.exists():
        return
    trial = _checked_folder(result)
    with waiting("scoring the baselines"):
        found = workers.call(_send_baselines, trial, log=trial.path / "baselines.log")
    if isinstance(found, ProcessExit | str):
        problem = found.reason if isinstance(found, ProcessExit) else found
        raise LightningHpoError(f"the baselines cannot be scored: {problem}; see {trial.path / 'baselines.log'}")
    write_post_scores(folder.baselines, found)


def _send_baselines(folder: TrialFolder, pipe: Connection) -> None:
    """Send the scores by post of the baselines on the validation split, or the problem as a text."""
    try:
        cli = rebuild_trial(folder)
        if cli.datamodule is not None:
            cli.datamodule.setup("validate")
        found = baselines_of(cli.model, cli.datamodule, "val")
    except (LightningHpoError, OSError) as error:
        pipe.send(str(error).splitlines()[0])
        return
    pipe.send({name: each for name, each in found.items() if isinstance(each, PostScores)})


def _score_test_split(result: RefitResult, workers: Workers) -> None:
    """Score the test split with the median trial."""
    trial, folder = result.median_trial, _checked_folder(result)
    with waiting("scoring the test split, once"):
        found = workers.call(_send_test_scores, folder, log=folder.path / "test.log")
    if isinstance(found, ProcessExit):
        found = found.reason
    if isinstance(found, str):
        raise LightningHpoError(f"trial {trial.number} cannot be scored on the test split: {found}")
    result.set_tested(trial, found)


def _checked_folder(result: RefitResult) -> TrialFolder:
    """Return the folder of the median trial, whose config is to run."""
    folder = folder_of(result.study).trial(result.median_trial.number)
    check_config(result.median_trial, folder)
    return folder


def _delete_weights(result: RefitResult, tracker: Tracker, keep: int | None) -> None:
    """Delete the weights of all trials but the tested one, or the one to test, and the winner's best seeds."""
    tested = result.median_trial.number if result.tested is None else result.tested["number"]
    kept = [member.trial for member in seeds_with_weights(result)[:keep]]
    total = len(result.study.get_trials(deepcopy=False))
    CheckpointRetention(result.study, tracker, total).keep_only({tested, *kept})


def _send_test_scores(folder: TrialFolder, pipe: Connection) -> None:
    """Send what the test split gave (see `RefitResult.tested`), or the problem as a text."""
    try:
        if not is_whole(folder.best):
            raise LightningHpoError(f"{folder.best} is missing or damaged")
        cli = rebuild_trial(folder)
        checkpoint = str(folder.best)
        (metrics,) = cli.trainer.test(cli.model, cli.datamodule, checkpoint, verbose=False, weights_only=True)
    except (LightningHpoError, MisconfigurationException, OSError) as error:
        pipe.send(str(error).splitlines()[0])
        return
    baselines = baselines_of(cli.model, cli.datamodule, "test")
    found: dict[str, Any] = {"metrics": metrics}
    found |= {"constant_answers": {name: score_of(each) for name, each in baselines.items()}}
    method = getattr(cli.model, "post_scores", None)
    scores = None if method is None else method("test")
    if scores is not None:
        leads = {
            name: estimate([[scores]], [[each]]) for name, each in baselines.items() if isinstance(each, PostScores)
        }
        own = estimate([[scores]])
        found |= {"interval": own.as_json()} if own is not None else {}
        found |= {"leads": {name: each.as_json() for name, each in leads.items() if each is not None}}
    pipe.send(found)
