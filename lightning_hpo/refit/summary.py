"""Table and lines that `refit` prints when all trials are finished."""

import shlex
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from lightning_hpo.refit.intervals import Estimate
from lightning_hpo.refit.members import seeds_with_weights
from lightning_hpo.refit.result import SEED, TRIAL, RefitResult, steps_text
from lightning_hpo.refit.seed_scores import SeedScores, compare
from lightning_hpo.storage.objective import BASELINE_METRIC, comparable_baselines, score_text
from lightning_hpo.terminal.printable import print_line

__all__ = ["print_candidates", "print_models", "print_test_score"]

_FILE_WIDTH = 120


def print_candidates(result: RefitResult) -> None:
    """Print the scores of the candidates, and the lines about the winner."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(_table(result))
    for line in _verdict(result):
        print_line(line)


def print_models(result: RefitResult) -> None:
    """Print the registered soup and ensemble of the winner, or which seeds have kept the weights for them."""
    for kind, entry in result.models.items():
        print_line(steps_text(kind, entry, result.monitor))
    members = seeds_with_weights(result)
    if len(members) > 1:
        size = sum(member.folder.best.stat().st_size for member in members)
        name = shlex.quote(result.searched.study_name)
        print_line(
            f"kept the weights of {len(members)} seeds of the winner, {size / 1e6:,.1f} MB; `refit {name} --keep 1` "
            f"deletes them; to average them: lightning-hpo register --study {name} --soup"
        )


def print_test_score(result: RefitResult) -> None:
    """Print the score on the test split, and the command that registers the scored model."""
    tested = result.tested
    if tested is None:
        print("test split: not used; without --no-test, refit scores it once with the winner's median seed")
        return
    name = result.monitor.replace("val_", "test_")
    value = tested["metrics"].get(name)
    score = f"{name} {score_text(value)}" if value is not None else f"the model logs no {name}"
    trial, seed = tested["params"][TRIAL], tested["params"][SEED]
    within = tested.get("interval") if result.monitor == BASELINE_METRIC else None
    interval = f", 95 % interval {_range(Estimate.of_json(within))}" if within and "low" in within else ""
    print_line(f"test split, scored once: {score}{interval} (trial {trial}, seed {seed}, which has the median score)")
    if tested["constant_answers"] and result.monitor == BASELINE_METRIC:
        leads = {name: Estimate.of_json(each) for name, each in tested.get("leads", {}).items() if "low" in each}
        print_line(f"baselines on the test split: {_baselines(tested['constant_answers'], leads)}")
    if trial != result.winner.trial:
        print("the winner has changed since, with more seeds; refit does not score the test split again")
    command = f"lightning-hpo register --study {shlex.quote(result.study.study_name)} --trial {tested['number']}"
    print_line(f"register this model: {command}")


def _table(result: RefitResult) -> Table:
    table = Table("trial", "searched", "mean", "std", "95 % interval", "searched - mean", "seeds", box=None)
    for each in result.ranked:
        found = each.estimate
        interval = _range(found) if found.count > 1 else "needs two seeds"
        std = score_text(found.std) if found.count > 1 else "-"
        row = (
            score_text(each.searched),
            score_text(found.mean),
            std,
            interval,
            score_text(each.gap, sign=True),
            str(found.count),
        )
        table.add_row(str(each.trial), *row)
    return table


def _verdict(result: RefitResult) -> list[str]:
    """Return lines about the winner, its lead over the second, failed seeds, and the baselines."""
    found = result.winner.estimate
    std = f" ± {score_text(found.std)}" if found.count > 1 else ""
    mean = f"mean {score_text(found.mean)}{std} over {found.count} seeds"
    lines = [f"winner: trial {result.winner.trial} of {result.searched.study_name}, {mean}"]
    lines += [_comparison(result.winner, second) for second in result.ranked[1:2]]
    for each in result.candidates:
        if each.failures:
            seeds = ", ".join(f"seed {seed} ({reason})" for seed, reason in each.failures.items())
            lines.append(f"trial {each.trial} failed with {seeds}")
    return lines + _baseline_lines(result)


def _baseline_lines(result: RefitResult) -> list[str]:
    """Return lines about the winner's lead over the baselines, and what its interval covers."""
    lines = []
    if result.leads:
        values = comparable_baselines(result.study.user_attrs)
        known = {name: values[name] for name in result.leads if name in values}
        lines.append(f"baselines: {_baselines(known, result.leads)}")
    elif result.better_baselines:
        listed = ", ".join(f"{name} {score_text(value)}" for name, value in result.better_baselines.items())
        lines.append(f"the winner is not better than these baselines: {listed}")
    found = result.winner.estimate
    if found.posts and found.count > 1:
        lines.append(
            f"the intervals cover other seeds and other posts like these {found.posts}; each score is that of an epoch "
            "chosen on other posts"
        )
    elif found.count > 1:
        lines.append(
            "the intervals cover other seeds, with these validation posts; each score is that of the best epoch"
        )
    return lines


def _baselines(values: Mapping[str, float], leads: Mapping[str, Estimate]) -> str:
    """Return the baselines, the best first, each with the lead over it."""
    return "; ".join(
        f"{name} {score_text(value)}" + (f" ({_lead(leads[name])})" if name in leads else "")
        for name, value in sorted(values.items(), key=lambda item: -item[1])
    )


def _lead(found: Estimate) -> str:
    verdict = "significant" if found.excludes_zero else "within the noise"
    return f"lead {score_text(found.mean, sign=True)}, {verdict}: {_range(found, sign=True)}"


def _range(found: Estimate, *, sign: bool = False) -> str:
    return f"{score_text(found.low, sign=sign)} to {score_text(found.high, sign=sign)}"


def _comparison(first: SeedScores, second: SeedScores) -> str:
    found = compare(first, second)
    if found.count < 2:
        return f"second: trial {second.trial}; a comparison needs at least two seeds that both trials have"
    verdict = "significant" if found.excludes_zero else "within the noise"
    interval = f"95 % interval {_range(found, sign=True)}"
    difference = score_text(found.mean, sign=True)
    paired = "seed and post" if found.posts else "seed"
    return f"second: trial {second.trial}; the difference of {difference} is {verdict} ({interval}, paired by {paired})"
