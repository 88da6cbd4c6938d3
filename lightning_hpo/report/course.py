"""Pictures of how a study went: what trained when, and how its trials ended."""

import heapq
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.report.colours import ENDINGS
from lightning_hpo.report.picture import Panel, Picture, Series
from lightning_hpo.report.study_record import StudyRecord, seconds_of
from lightning_hpo.study.eta import duration

__all__ = ["endings", "places", "timeline"]

_MOST_REASONS = 8
_UNITS = ((timedelta(days=2), "days", 86400.0), (timedelta(hours=2), "hours", 3600.0), (timedelta(0), "minutes", 60.0))


def timeline(record: StudyRecord) -> Picture:
    """Every trial from its start to its end, in the first place that was free."""
    name, title = "timeline", "Timeline"
    begun = [trial for trial in record.trials if trial.datetime_start is not None]
    if not begun:
        return Picture(name, title, "No trial has begun, so there is no time to show.")
    spans = _spans(begun)
    lanes = places(spans)
    first = min(start for start, _ in spans)
    lasted = max(end for _, end in spans) - first
    unit, length = next((unit, length) for least, unit, length in _UNITS if lasted >= least)
    rows = [
        (trial, (start - first).total_seconds() / length, (end - start).total_seconds() / length, float(lane))
        for trial, (start, end), lane in zip(begun, spans, lanes, strict=True)
    ]
    series = [_bars(state, chosen) for state in ENDINGS if (chosen := [row for row in rows if row[0].state == state])]
    ticks = {float(lane): f"worker {lane + 1}" for lane in range(max(lanes) + 1)}
    says = (
        f"A bar a trial, from its start to its end; the first started at {first:%Y-%m-%d %H:%M}. Which worker ran a "
        "trial is not recorded: each is drawn with the first that was free. The bar of a trial that was parked "
        "and resumed holds its waiting, too; of one that still waits, what it has trained. One that runs is a dot."
    )
    return Picture(name, title, says, [Panel(f"{unit} since the first start", "", series, y_ticks=ticks)])


def _bars(state: TrialState, rows: Sequence[tuple[FrozenTrial, float, float, float]]) -> Series:
    """Trials of one state; a row is a trial, its start, its length and its place."""
    ending, colour = ENDINGS[state]
    trials, starts, lengths, lanes = zip(*rows, strict=True)
    texts = [f"trial {trial.number}, {ending}, {duration(seconds_of(trial))}" for trial in trials]
    if state == TrialState.RUNNING:
        return Series(f"{ending} since", colour, starts, lanes, texts=[text.rsplit(",", 1)[0] for text in texts])
    return Series(ending, colour, lengths, lanes, kind="bars", texts=texts, base=starts)


def _spans(trials: Sequence[FrozenTrial]) -> list[tuple[datetime, datetime]]:
    """Start and end of trials that have begun; one that runs lasts until the last thing that is known."""
    known = [time for trial in trials for time in (trial.datetime_start, trial.datetime_complete) if time is not None]
    last = max(known)
    spans = []
    for trial in trials:
        start = trial.datetime_start or last
        trained = start + timedelta(seconds=seconds_of(trial))
        spans.append((start, trial.datetime_complete or (trained if trial.state == TrialState.WAITING else last)))
    return spans


def places(spans: Sequence[tuple[datetime, datetime]]) -> list[int]:
    """Give each span the first place that is free at its start; as many places as spans ever overlap.

    Args:
        spans: [N] Start and end of each, in any order.

    Returns:
        [N] The place of each, from 0.
    """
    found = [0] * len(spans)
    free: list[int] = []
    busy: list[tuple[datetime, int]] = []
    count = 0
    for index in sorted(range(len(spans)), key=lambda each: spans[each]):
        start, end = spans[index]
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            found[index] = heapq.heappop(free)
        else:
            found[index] = count
            count += 1
        heapq.heappush(busy, (end, found[index]))
    return found


def endings(record: StudyRecord) -> Picture:
    """How many trials ended in each way, the failed ones by their reason."""
    name, title = "endings", "Endings"
    if not record.trials:
        return Picture(name, title, "The study has no trials.")
    bars = [row for state in ENDINGS for row in _counted(record.of(state), state)]
    series = [
        Series(
            "",
            colour,
            [count for each, _, count in bars if each == state],
            [float(-place) for place, (each, *_) in enumerate(bars) if each == state],
            kind="bars",
            texts=[f"{label}: {count}" for each, label, count in bars if each == state],
        )
        for state, (_, colour) in ENDINGS.items()
        if any(each == state for each, *_ in bars)
    ]
    ticks = {float(-place): f"{label} ({count})" for place, (_, label, count) in enumerate(bars)}
    says = ", ".join(f"{count} {label}" for _, label, count in bars) + "."
    return Picture(name, title, says, [Panel("trials", "", series, y_ticks=ticks, x_whole=True)])


def _counted(trials: Sequence[FrozenTrial], state: TrialState) -> list[tuple[TrialState, str, int]]:
    """Rows of state, label and count."""
    ending, _ = ENDINGS[state]
    if state != TrialState.FAIL:
        return [(state, ending, len(trials))] if trials else []
    reasons = Counter(str(trial.user_attrs.get("ended_by", "no reason recorded")) for trial in trials).most_common()
    rows: list[tuple[TrialState, str, int]] = [
        (state, f"{ending}: {reason}", count) for reason, count in reasons[:_MOST_REASONS]
    ]
    rest = sum(count for _, count in reasons[_MOST_REASONS:])
    return [*rows, (state, f"{ending}: other reasons", rest)] if rest else rows
