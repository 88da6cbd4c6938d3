"""Tables of the report: the winner, the parameters, the constant answers, the data, what it was made with."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from lightning_hpo.report.study_record import StudyRecord, score
from lightning_hpo.report.table import Table
from lightning_hpo.study_folder import CONFIG, fit_command

__all__ = ["constants", "data", "environment", "summary", "winner"]

_MADE_WITH = {
    "device": "device",
    "device_index": "gpu",
    "mlflow.source.git.commit": "git commit",
    "git_dirty": "git: files changed since",
}
_MOST_VALUES = 6


def summary(record: StudyRecord) -> Table:
    """The study in a few rows."""
    ended = len(record.of(TrialState.COMPLETE, TrialState.PRUNED))
    rows = [
        ("study", record.name),
        ("agent", str(record.about.get("agent", "not recorded"))),
        ("score", f"{record.monitor}; {'more' if record.maximizes else 'less'} is better"),
        ("done", f"{ended} of {record.about.get('n_trials', 'an unknown number of')} trials"),
    ]
    if record.best is not None:
        rows.append(("best", f"{score(record.best):.4f} in trial {record.best.number}"))
    if record.best is not None and record.baselines:
        name, value = _best_constant(record)
        ahead = score(record.best) - value if record.maximizes else value - score(record.best)
        rows.append(("ahead of the best constant answer", f"{ahead:+.4f} ({name}: {value:.4f})"))
    return Table("summary", "In short", "", ("", ""), rows)


def _best_constant(record: StudyRecord) -> tuple[str, float]:
    better = max if record.maximizes else min
    return better(record.constant_answers.items(), key=lambda answer: answer[1])


def winner(record: StudyRecord) -> Table:
    """The best trial's parameters, where each was searched, and the command that trains it again."""
    title = "The winner"
    if record.best is None:
        return Table("winner", title, "No trial is complete, so there is no winner.")
    best = record.best
    rows = [
        (flag, _value(best.params[flag]) if flag in best.params else "not set", _range(kind))
        for flag, kind in record.distributions.items()
    ]
    says = f"Trial {best.number}, {record.monitor} {score(best):.4f}."
    if best.user_attrs.get("collapsed"):
        says += " Its answers are all the same: it has learned nothing."
    folder = record.about.get("outdir")
    if folder is None:
        return Table("winner", title, f"{says} It was not trained here, so there is no config of it.", _HEAD, rows)
    config = Path(folder) / f"trial_{best.number}" / CONFIG
    says += " This trains it again, from the first epoch; its run in MLflow holds the same file"
    says += "." if config.is_file() else f", since {config} is not on this machine."
    return Table("winner", title, says, _HEAD, rows, command=fit_command(config))


_HEAD = ("parameter", "value", "searched in")


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _range(kind: BaseDistribution) -> str:
    if isinstance(kind, CategoricalDistribution):
        return ", ".join(str(choice) for choice in kind.choices)
    if isinstance(kind, IntDistribution | FloatDistribution):
        step = f", step {kind.step:g}" if kind.step not in (None, 1) else ""
        return f"{kind.low:g} to {kind.high:g}{step}{', logarithmic' if kind.log else ''}"
    return str(kind)


def constants(record: StudyRecord) -> Table:
    """What the constant answers score."""
    title = "Constant answers"
    if not record.constant_answers:
        return Table("constants", title, "The study has not recorded what constant answers score.")
    rows = [(name, f"{value:.4f}") for name, value in record.constant_answers.items()]
    says = "What always the same answer scores on the validation part: a model that has learned is better."
    collapsed = sum(bool(trial.user_attrs.get("collapsed")) for trial in record.complete)
    says += f" {collapsed} of the {len(record.complete)} complete trials give one answer to everything."
    return Table("constants", title, says, ("answer", "val_metric"), rows)


def data(record: StudyRecord) -> Table:
    """What the data hold, and what was left out of them."""
    counts: Mapping[str, int] = record.about.get("data_counts", {})
    rows = [(name, str(count)) for name, count in counts.items()]
    if "data_fingerprint" in record.about:
        rows.append(("fingerprint of data and split", str(record.about["data_fingerprint"])))
    says = "" if rows else "The study has not recorded what its data hold."
    return Table("data", "Data", says, ("", "") if rows else (), rows)


def environment(record: StudyRecord) -> Table:
    """Packages, commit and device of the runs; more than one row of a kind where trials differ."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for run in record.runs.values():
        for tag, value in run.tags.items():
            if tag.startswith("version.") or tag in _MADE_WITH:
                found[_MADE_WITH.get(tag, tag.removeprefix("version."))][value] += 1
    if not found:
        return Table("environment", "Environment", "There are no runs of the trials that would tell.")
    rows = []
    for what in sorted(found):
        for value, count in found[what].most_common(_MOST_VALUES):
            rows.append((what, value, str(count)))
        rest = found[what].most_common()[_MOST_VALUES:]
        if rest:
            rows.append((what, f"{len(rest)} others", str(sum(count for _, count in rest))))
    says = "What the trials were trained with, as their runs have recorded it."
    return Table("environment", "Environment", says, ("what", "value", "trials"), rows)
