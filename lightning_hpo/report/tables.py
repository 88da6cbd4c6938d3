"""Tables of a report: summary, best trial, baselines, data and environment."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from lightning_hpo.data.split_sizes import recorded_sizes
from lightning_hpo.report.study_record import StudyRecord, score
from lightning_hpo.storage.attributes import StudyKey, folder_of
from lightning_hpo.storage.objective import score_text
from lightning_hpo.study_folder import fit_command

__all__ = ["Table", "baselines", "best_trial", "data", "environment", "splits", "summary"]

_ENVIRONMENT_TAGS = {
    "device": "device",
    "device_index": "gpu",
    "mlflow.source.git.commit": "git commit",
    "git_dirty": "git: files changed since",
}
_MAX_VALUES = 6
_PARAMETER_HEAD = ("parameter", "value", "search space")


@dataclass(frozen=True)
class Table:
    """Table under a heading.

    Args:
        name: Its anchor on the page.
        title: Its heading.
        caption: What it shows; without rows, why it is empty.
        head: Names of the columns.
        rows: One text for each column.
        command: A command for the user to run, shown above the rows.
    """

    name: str
    title: str
    caption: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    command: str = ""


def summary(record: StudyRecord) -> Table:
    """Return the main facts of the study."""
    finished, objective = len(record.of(TrialState.COMPLETE, TrialState.PRUNED)), record.objective
    rows = [
        ("study", record.name),
        ("agent", str(record.about.get(StudyKey.AGENT, "not recorded"))),
        ("metric", f"{record.monitor} ({'higher' if objective.mode == 'max' else 'lower'} is better)"),
        ("finished trials", f"{finished} of {record.about.get(StudyKey.N_TRIALS, 'an unknown number')}"),
    ]
    if record.best is not None:
        rows.append(("best trial", f"trial {record.best.number}, {score_text(score(record.best))}"))
    if record.best is not None and record.baselines:
        name, value = min(record.baselines.items(), key=lambda baseline: objective.sort_key(baseline[1]))
        lead = objective.gain(score(record.best), value)
        rows.append(("lead over the best baseline", f"{score_text(lead, sign=True)} ({name}: {score_text(value)})"))
    for kind, model in record.about.get(StudyKey.REFIT_MODELS, {}).items():
        rows.append((kind, f"seeds {', '.join(map(str, model['seeds']))}, {score_text(model['value'])}"))
    return Table("summary", "Summary", "", ("", ""), rows)


def best_trial(record: StudyRecord) -> Table:
    """Return the parameters of the best trial, and the command that retrains it."""
    name, title, best = "best_trial", "Best trial", record.best
    if best is None:
        return Table(name, title, "No trial is complete.")
    rows = [
        (flag, _value(best.params[flag]) if flag in best.params else "not set", _search_space(kind))
        for flag, kind in record.distributions.items()
    ]
    caption = f"Trial {best.number}, {record.monitor} {score_text(score(best))}."
    if best in record.collapsed:
        caption += " It predicts the same for every example: it has learned nothing."
    if StudyKey.OUTDIR not in record.about:
        caption += " It was not trained by `tune`, so it has no config."
        return Table(name, title, caption, _PARAMETER_HEAD, rows)
    config = folder_of(record.study).trial(best.number).config
    caption += " This command retrains it from the first epoch; its MLflow run holds the same config"
    caption += "." if config.is_file() else f", because {config} is not on this machine."
    return Table(name, title, caption, _PARAMETER_HEAD, rows, command=fit_command(config))


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _search_space(kind: BaseDistribution) -> str:
    if isinstance(kind, CategoricalDistribution):
        return ", ".join(map(str, kind.choices))
    assert isinstance(kind, IntDistribution | FloatDistribution)
    step = f", step {kind.step:g}" if kind.step not in (None, 1) else ""
    return f"{kind.low:g} to {kind.high:g}{step}{', logarithmic' if kind.log else ''}"


def baselines(record: StudyRecord) -> Table:
    """Return the score of each baseline."""
    name, title = "baselines", "Baselines"
    if not record.baselines:
        return Table(name, title, "The study has no baselines in the metric that it optimizes.")
    rows = [(baseline, score_text(value)) for baseline, value in record.baselines.items()]
    caption = "Scores of simple models on the validation split; a trained model should score better."
    if record.complete:
        counts = f"{len(record.collapsed)} of {len(record.complete)}"
        caption += f" {counts} complete trials predict the same for every example."
    return Table(name, title, caption, ("model", record.monitor), rows)


def splits(record: StudyRecord) -> Table:
    """Return posts and positives of each split, by criterion."""
    name, title = "splits", "Splits"
    sizes = recorded_sizes(record.about.get(StudyKey.SPLIT_SIZES, {}))
    if not sizes:
        return Table(name, title, "The study has not recorded the sizes of its splits.")
    head = ("", *sizes)
    rows = [("posts", *(str(size.posts) for size in sizes.values()))]
    rows += [("positives", *(str(size.total) for size in sizes.values()))]
    for criterion in next(iter(sizes.values())).positives:
        rows.append((criterion, *(str(size.positives[criterion]) for size in sizes.values())))
    rule = record.about.get(StudyKey.SPLIT_RULE)
    return Table(name, title, f"Posts, and positive posts of each criterion; --data.split_rule {rule}.", head, rows)


def data(record: StudyRecord) -> Table:
    """Return what the loader repaired or left out, and the fingerprint."""
    rows = [(name, str(count)) for name, count in record.about.get(StudyKey.DATA_COUNTS, {}).items()]
    if StudyKey.DATA_FINGERPRINT in record.about:
        rows.append(("fingerprint of data and split", str(record.about[StudyKey.DATA_FINGERPRINT])))
    return Table("data", "Data", "" if rows else "The study has not recorded the size of its data.", ("", ""), rows)


def environment(record: StudyRecord) -> Table:
    """Return packages, commit and device of the runs, with a row for each value where trials differ."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for run in record.runs.values():
        for tag, value in run.tags.items():
            if tag.startswith("version.") or tag in _ENVIRONMENT_TAGS:
                counts[_ENVIRONMENT_TAGS.get(tag, tag.removeprefix("version."))][value] += 1
    if not counts:
        return Table("environment", "Environment", "The trials have no MLflow runs.")
    rows = []
    for name, values in sorted(counts.items()):
        rows += [(name, value, str(count)) for value, count in values.most_common(_MAX_VALUES)]
        if rest := values.most_common()[_MAX_VALUES:]:
            rows.append((name, f"{len(rest)} others", str(sum(count for _, count in rest))))
    return Table("environment", "Environment", "As recorded in the MLflow runs.", ("name", "value", "trials"), rows)
