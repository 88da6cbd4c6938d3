"""What a refit has found: the scores of every candidate, the winner, and its score on the test part."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import optuna
from lightning.fabric.utilities.exceptions import MisconfigurationException
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.refit.seed_scores import Estimate, SeedScores, compare, rank
from lightning_hpo.study.lines import waiting
from lightning_hpo.study.retention import CheckpointRetention
from lightning_hpo.study.workers import ProcessExit, Workers
from lightning_hpo.study_folder import BEST, CONFIG
from lightning_hpo.tracking.tracker import Tracker

__all__ = ["CANDIDATES", "SEED", "TRIAL", "RefitResult"]

CANDIDATES = "refit_candidates"
TRIAL, SEED = "trial", "seed_everything"
_TESTED = "refit_tested"
_FILE = "refit.json"
_WIDTH_OF_A_FILE = 120


class RefitResult:
    """The result of a refit all of whose trials have ended.

    Args:
        searched: The study that was searched.
        study: Its refit.

    Raises:
        LightningHpoError: If no trial of it has a score.
    """

    def __init__(self, searched: optuna.Study, study: optuna.Study) -> None:
        self._searched, self._study = searched, study
        self._trials = study.get_trials(deepcopy=False)
        if not self.ranked:
            raise LightningHpoError(f"{study.study_name}: every trial has failed; `lightning-hpo status` says how")

    @cached_property
    def candidates(self) -> list[SeedScores]:
        """The candidates in the order in which the search had ranked them."""
        values = {trial.number: trial.value for trial in self._searched.get_trials(deepcopy=False)}
        return [self._candidate(number, values[number]) for number in self._study.user_attrs[CANDIDATES]]

    def _candidate(self, number: int, searched: float | None) -> SeedScores:
        own = [trial for trial in self._trials if trial.params.get(TRIAL) == number]
        scores = {trial.params[SEED]: trial.value for trial in own if trial.value is not None}
        failed = [trial for trial in own if trial.state == TrialState.FAIL]
        reasons = {trial.params[SEED]: str(trial.user_attrs.get("ended_by", "failed")) for trial in failed}
        return SeedScores(number, math.nan if searched is None else searched, scores, reasons)

    @cached_property
    def ranked(self) -> list[SeedScores]:
        """The candidates with a score, the best first."""
        return rank(self.candidates, maximizes=self._study.direction == StudyDirection.MAXIMIZE)

    @property
    def chosen(self) -> FrozenTrial:
        """The winner's trial with the median score: what it does on the test part is neither luck nor bad luck."""
        wanted = {TRIAL: self.ranked[0].trial, SEED: self.ranked[0].typical_seed}
        return next(trial for trial in self._trials if trial.value is not None and trial.params == wanted)

    def verdict(self) -> list[str]:
        """Who has won, and whether that is more than luck; a line each."""
        first = self.ranked[0]
        lines = [f"winner: trial {first.trial} of {self._searched.study_name}, {_shown(first.estimate)}"]
        lines += [_told_apart(first, second) for second in self.ranked[1:2]]
        lines += [f"trial {each.trial}: {_failures(each)}" for each in self.candidates if each.failures]
        if best := self._constant_ahead(first.estimate.mean):
            lines.append(f"no better than the constant answer {best}")
        return lines

    def _constant_ahead(self, mean: float) -> str:
        about = self._study.user_attrs
        answers: Mapping[str, float] = about["constant_answers"] if about["monitor"] == "val_metric" else {}
        ahead = [f"{name}: {value:.4f}" for name, value in answers.items() if value >= mean]
        return ", ".join(ahead)

    def table(self) -> Table:
        """The candidates with their figures."""
        table = Table("trial", "searched", "mean", "std", "95% interval", "searched - mean", "seeds", box=None)
        for each in self.ranked:
            found = each.estimate
            interval = f"{found.low:.4f} to {found.high:.4f}" if found.count > 1 else "needs two seeds"
            std = f"{found.std:.4f}" if found.count > 1 else "-"
            row = (f"{each.searched:.4f}", f"{found.mean:.4f}", std, interval, f"{each.gap:+.4f}", str(found.count))
            table.add_row(str(each.trial), *row)
        return table

    def figures(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "study": self._searched.study_name,
            "monitor": self._study.user_attrs["monitor"],
            "candidates": [asdict(each) | asdict(each.estimate) | {"gap": each.gap} for each in self.ranked],
            "difference": asdict(compare(*self.ranked[:2])) if len(self.ranked) > 1 else None,
            "winner": self.ranked[0].trial,
            "test": self._study.user_attrs.get(_TESTED),
        }

    def conclude(self, tracker: Tracker, parent: str, workers: Workers, *, test: bool) -> None:
        """Score the test part, if nobody has, say everything, and record it with the parent run.

        Args:
            tracker: MLflow's side of the refit.
            parent: Its parent run.
            workers: Gives the process for the test part.
            test: Whether the test part may be asked.
        """
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = _WIDTH_OF_A_FILE
        console.print(self.table())
        _say(console, self.verdict())
        if test and _TESTED not in self._study.user_attrs:
            self._test(tracker, workers)
        _say(console, self._tested())
        text = json.dumps(self.figures(), indent=2)
        (self._folder / _FILE).write_text(text, encoding="utf-8")
        tracker.log_text(parent, text, _FILE)
        tracker.log_metrics(parent, self._metrics(), step=0, time_ms=time.time_ns() // 1_000_000)
        tracker.set_status(parent, "FINISHED", {"winner": f"trial {self.ranked[0].trial}"})

    @property
    def _folder(self) -> Path:
        return Path(self._study.user_attrs["outdir"])

    def _test(self, tracker: Tracker, workers: Workers) -> None:
        chosen = self.chosen
        folder = self._folder / f"trial_{chosen.number}"
        with waiting("scoring the test part, once"):
            found = workers.call(_score, folder, log=folder / "test.log")
        if isinstance(found, ProcessExit):
            found = f"its process was {found.reason}"
        if isinstance(found, str):
            raise LightningHpoError(f"the test part could not be scored with trial {chosen.number}: {found}")
        metrics, constants = found
        tested = {"number": chosen.number, "params": chosen.params, "metrics": metrics, "constant_answers": constants}
        self._study.set_user_attr(_TESTED, tested)
        CheckpointRetention(self._study, tracker, len(self._trials)).keep_only(chosen.number)

    def _tested(self) -> list[str]:
        tested = self._study.user_attrs.get(_TESTED)
        if tested is None:
            return ["the test part is untouched; without --no-test it is scored, once, with the winner's median seed"]
        monitor = str(self._study.user_attrs["monitor"]).replace("val_", "test_")
        value = tested["metrics"].get(monitor)
        with_ = f"trial {tested['params'][TRIAL]}, seed {tested['params'][SEED]}, the median of its seeds"
        lines = [
            f"test part, once: {monitor} " + ("is not logged" if value is None else f"{value:.4f}") + f" ({with_})"
        ]
        if tested["constant_answers"]:
            constants = ", ".join(f"{name} {score:.4f}" for name, score in tested["constant_answers"].items())
            lines.append(f"constant answers there: {constants}")
        if tested["params"][TRIAL] != self.ranked[0].trial:
            lines.append("more seeds have changed the winner since; the test part is not asked a second time")
        register = f"lightning-hpo register --study {self._study.study_name} --trial {tested['number']}"
        return [*lines, f"to register that model: {register}"]

    def _metrics(self) -> dict[str, float]:
        first = self.ranked[0]
        own = {f"winner_{name}": getattr(first.estimate, name) for name in ("mean", "std", "low", "high")}
        tested = self._study.user_attrs.get(_TESTED, {}).get("metrics", {})
        metrics = {**own, "winner_searched": first.searched, "winner_gap": first.gap, **tested}
        return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _score(folder: Path, pipe: Connection) -> None:
    """Send the metrics and the constant answers of the test part, or why there are none."""
    kwargs = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    try:
        cli = AgentCLI(["--config", str(folder / CONFIG)], trainer_kwargs=kwargs)
        checkpoint = str(folder / BEST)
        (metrics,) = cli.trainer.test(cli.model, cli.datamodule, checkpoint, verbose=False, weights_only=True)
    except (LightningHpoError, MisconfigurationException, OSError) as error:
        pipe.send(str(error).splitlines()[0])
        return
    answers = getattr(cli.model, "constant_answers", None)
    pipe.send((metrics, answers(cli.datamodule.test_pairs, cli.datamodule.corpus.posts) if answers else {}))


def _say(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _shown(found: Estimate) -> str:
    spread = f" ± {found.std:.4f}" if found.count > 1 else ""
    return f"{found.mean:.4f}{spread} over {found.count} seeds"


def _told_apart(first: SeedScores, second: SeedScores) -> str:
    found = compare(first, second)
    if found.count < 2:
        return f"trial {second.trial} is second; with fewer than two seeds of both nobody can tell them apart"
    interval = f"{found.mean:+.4f} seed by seed, 95% interval {found.low:+.4f} to {found.high:+.4f}"
    verdict = "more than luck" if found.excludes_zero else "the two cannot be told apart"
    return f"against trial {second.trial}, the second: {interval}: {verdict}"


def _failures(candidate: SeedScores) -> str:
    seeds = ", ".join(f"seed {seed} ({reason})" for seed, reason in candidate.failures.items())
    return f"failed with {seeds}"
