"""Last steps of a refit: print the scores, score the winner on the test split once, and record the result."""

import json
import time
from multiprocessing.connection import Connection

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_hpo.callbacks.checkpoint_files import is_whole
from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.refit.result import RefitResult
from lightning_hpo.refit.summary import print_candidates, print_test_score
from lightning_hpo.storage.attributes import folder_of
from lightning_hpo.study.lines import waiting
from lightning_hpo.study.retention import CheckpointRetention
from lightning_hpo.study.workers import ProcessExit, Workers
from lightning_hpo.study_folder import TrialFolder, write_whole
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.trainer import rebuild_trial

__all__ = ["conclude"]

_FILE = "refit.json"


def conclude(result: RefitResult, tracker: Tracker, parent: str, workers: Workers, *, test: bool) -> None:
    """Print the result of a refit, and record it in the parent run.

    With `test`, the test split is scored in a new process, unless an earlier call has done so.

    Raises:
        LightningHpoError: If the test split cannot be scored.
    """
    print_candidates(result)
    if test and result.tested is None:
        _score_test_split(result, tracker, workers)
    print_test_score(result)
    text = json.dumps(result.as_dict(), indent=2)
    write_whole(folder_of(result.study).path / _FILE, text)
    tracker.log_text(parent, text, _FILE)
    tracker.log_metrics(parent, result.metrics(), step=0, time_ms=time.time_ns() // 1_000_000)
    tracker.set_status(parent, "FINISHED", {"winner": f"trial {result.winner.trial}"})


def _score_test_split(result: RefitResult, tracker: Tracker, workers: Workers) -> None:
    """Score the test split with the median trial, and delete the checkpoints of all other trials."""
    trial = result.median_trial
    folder = folder_of(result.study).trial(trial.number)
    with waiting("scoring the test split, once"):
        found = workers.call(_send_test_scores, folder, log=folder.path / "test.log")
    if isinstance(found, ProcessExit):
        found = found.reason
    if isinstance(found, str):
        raise LightningHpoError(f"trial {trial.number} cannot be scored on the test split: {found}")
    result.set_tested(trial, *found)
    total = len(result.study.get_trials(deepcopy=False))
    CheckpointRetention(result.study, tracker, total).keep_only(trial.number)


def _send_test_scores(folder: TrialFolder, pipe: Connection) -> None:
    """Send the metrics and the constant baselines of the test split, or the problem as a text."""
    try:
        if not is_whole(folder.best):
            raise LightningHpoError(f"{folder.best} is missing or damaged")
        cli = rebuild_trial(folder)
        checkpoint = str(folder.best)
        (metrics,) = cli.trainer.test(cli.model, cli.datamodule, checkpoint, verbose=False, weights_only=True)
    except (LightningHpoError, MisconfigurationException, OSError) as error:
        pipe.send(str(error).splitlines()[0])
        return
    baselines = getattr(cli.model, "constant_answers", None)
    pipe.send((metrics, baselines(cli.datamodule.test_pairs, cli.datamodule.corpus.posts) if baselines else {}))
