"""Studies like those of `tune`, made without training: trials with all outcomes, parameters of all kinds."""

import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

__all__ = ["ABOUT", "EPOCHS", "KINDS", "START", "WIDE", "all_outcomes", "make_study", "make_trial"]

START = datetime(2026, 1, 2, 3, 4)
EPOCHS = 8

ABOUT: dict[str, Any] = {
    "agent": "criteria",
    "monitor": "val_metric",
    "mode": "max",
    "data_fingerprint": "5f1e",
    "data_counts": {"posts": 1484, "evidence sentences not found in their post": 1},
    "split_rule": "stratified",
    "split_sizes": {
        "train": {"posts": 1038, "positives": {"FATIGUE": 900, "PSYCHOMOTOR": 100}},
        "val": {"posts": 223, "positives": {"FATIGUE": 200, "PSYCHOMOTOR": 15}},
        "test": {"posts": 223, "positives": {"FATIGUE": 199, "PSYCHOMOTOR": 15}},
    },
    "constant_answers": {"always met": 0.4242, "never met": 0.0},
    "n_trials": 40,
}

KINDS: dict[str, BaseDistribution] = {
    "model.name": CategoricalDistribution(
        ["bert-base-uncased", "roberta-large", "microsoft/deberta-v3-base", "google/electra-large-discriminator"]
    ),
    "model.optim.lr": FloatDistribution(5e-6, 3e-4, log=True),
    "model.head.layers": IntDistribution(1, 4),
    "aug.enabled": CategoricalDistribution([True, False]),
    "aug.p_apply": FloatDistribution(0.05, 0.3),
}

WIDE: dict[str, BaseDistribution] = {
    **KINDS,
    "model.name": CategoricalDistribution(
        [
            "bert-base-uncased",
            "bert-large-uncased",
            "roberta-base",
            "roberta-large",
            "microsoft/deberta-v3-base",
            "microsoft/deberta-v3-large",
            "google/electra-base-discriminator",
            "google/electra-large-discriminator",
            "xlm-roberta-base",
        ]
    ),
    "aug.methods": CategoricalDistribution(
        ["[swap, delete]", "[synonyms]", "[RandomWordAug, SpellingAug, SplitAug, KeyboardAug, OcrAug]"]
    ),
    "trainer.accumulate_grad_batches": CategoricalDistribution([1, 2, 4, 8]),
    "model.optim.eps": FloatDistribution(1e-9, 1e-6, log=True),
    "model.optim.weight_decay": FloatDistribution(1e-6, 0.2, log=True),
    "model.head.hidden": IntDistribution(256, 2048),
}
"""Parameters with long names and values."""


def _draw(kind: BaseDistribution, dice: random.Random) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return dice.choice(kind.choices)
    if isinstance(kind, IntDistribution):
        return dice.randint(kind.low, kind.high)
    assert isinstance(kind, FloatDistribution)
    return kind.low * (kind.high / kind.low) ** dice.random() if kind.log else dice.uniform(kind.low, kind.high)


def make_trial(
    number: int,
    state: TrialState = TrialState.COMPLETE,
    kinds: Mapping[str, BaseDistribution] = KINDS,
    **user_attrs: Any,
) -> FrozenTrial:
    """Return a trial with drawn parameters and a learning curve; two trials train at a time, 10 s per epoch."""
    dice = random.Random(number)
    params = {name: _draw(kind, dice) for name, kind in kinds.items()}
    if params.get("aug.enabled") is False:
        params.pop("aug.p_apply", None)
    skill = 0.4 + 0.3 * dice.random() + (0.1 if params.get("aug.enabled") else 0.0)
    epochs = {TrialState.COMPLETE: EPOCHS, TrialState.PRUNED: 1 + number % 4, TrialState.FAIL: number % 2}.get(state, 2)
    values = {epoch: skill * (1 - 0.6 ** (epoch + 1)) for epoch in range(epochs)}
    seconds = 10.0 * max(1, epochs)
    begun = START + timedelta(seconds=40 * number)
    trial = optuna.trial.create_trial(
        state=state,
        value=max(values.values()) if state == TrialState.COMPLETE else None,
        params=params,
        distributions={name: kinds[name] for name in params},
        intermediate_values=values,
        user_attrs={"runtime_s": seconds, **user_attrs},
    )
    trial.datetime_start = None if state == TrialState.WAITING else begun
    trial.datetime_complete = begun + timedelta(seconds=seconds) if state.is_finished() else None
    return trial


def make_study(
    storage: str | optuna.storages.BaseStorage | None, trials: list[FrozenTrial], about: Mapping[str, Any] = ABOUT
) -> optuna.Study:
    """Return a study named `first` with these trials."""
    study = optuna.create_study(study_name="first", storage=storage, direction="maximize")
    for key, value in about.items():
        study.set_user_attr(key, value)
    study.add_trials(trials)
    return study


def all_outcomes() -> list[FrozenTrial]:
    """Return 40 trials: complete (one of them collapsed), pruned, failed, running and paused."""
    made = [make_trial(number, TrialState.PRUNED if number % 3 == 2 else TrialState.COMPLETE) for number in range(35)]
    made.append(make_trial(35, TrialState.COMPLETE, collapsed=True))
    made.append(make_trial(36, TrialState.FAIL, ended_by="out of memory"))
    made.append(make_trial(37, TrialState.FAIL, ended_by="train_loss is nan at epoch 1"))
    return [*made, make_trial(38, TrialState.RUNNING), make_trial(39, TrialState.WAITING)]
