"""Studies that start from other studies, and the errors of such a start."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from lightning_hpo.exceptions import InputError
from lightning_hpo.search.warm_start import WarmStart, find_warm_start
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.studies import StudyDatabase
from tests.study_sandbox import StudySandbox

Captured = pytest.CaptureFixture[str]
Find = Callable[..., WarmStart]
QUICK = ("--study.register", "false", "--study.pruner", "NopPruner", "--trainer.max_epochs", "1")
LR = {"low": 1.0e-3, "high": 1.0, "log": True}
HIDDEN = {"low": 2, "high": 16}
BATCH = {"choices": [8, 16]}
STAGES: dict[str, dict[str, Any]] = {
    "baseline": {"study": {"n_trials": 2}, "search_space": {"model.lr": LR, "model.hidden": HIDDEN}},
    "second": {
        "study": {"n_trials": 2, "from": "baseline", "fix": ["model.lr", "model.hidden"]},
        "search_space": {"data.batch_size": BATCH},
    },
    "joint": {
        "study": {"n_trials": 1, "from": "second", "queue": 1, "narrow": 0.2, "fix": ["model.hidden"]},
        "search_space": {"model.lr": LR, "model.hidden": HIDDEN, "data.batch_size": BATCH},
    },
}


def _best(sandbox: StudySandbox, study: str) -> FrozenTrial:
    return max(sandbox.trials(study), key=lambda trial: trial.value or 0.0)


def test_each_of_three_stages_starts_from_the_previous_one(sandbox: StudySandbox, capfd: Captured) -> None:
    for name, stage in STAGES.items():
        assert sandbox.tune(name, *QUICK, config=stage) == 0
    second = _best(sandbox, "second")
    # The last stage is resumed after its source has found a better trial: no point is repeated, and nothing changes.
    other = optuna.load_study(study_name="second", storage=sandbox.storage)
    other.add_trial(optuna.create_trial(params={"data.batch_size": 8}, distributions=second.distributions, value=1.0))
    assert sandbox.tune("joint", *QUICK, "--study.n_trials", "3", config=STAGES["joint"]) == 0
    assert capfd.readouterr().err.count(f"starts from second, best {second.value:.4f} in trial {second.number}: ") == 2
    defaults = {"model.lr": 0.1, "model.hidden": 4}
    baseline = _best(sandbox, "baseline")
    assert sandbox.trials("baseline")[0].params == defaults

    trials = sandbox.trials("second")[:2]
    assert trials[0].params == {"data.batch_size": 16}  # the default; the baseline has not searched it
    assert {trial.params["data.batch_size"] for trial in trials} <= {8, 16}
    for trial in trials:
        config = yaml.safe_load((sandbox.folder / f"outputs/second/trial_{trial.number}/config.yaml").read_text())
        values = config["model"]["init_args"]
        assert {"model.lr": values["lr"], "model.hidden": values["hidden"]} == baseline.params
    assert trials[0].value == pytest.approx(baseline.value)  # the same values as the best trial

    trials = sandbox.trials("joint")
    lr = baseline.params["model.lr"]
    kind = trials[0].distributions["model.lr"]
    assert isinstance(kind, FloatDistribution)
    assert (kind.low, kind.high) == pytest.approx((max(1e-3, lr / 1000**0.1), min(1.0, lr * 1000**0.1)))
    assert trials[1].params == second.params | {"model.lr": lr}
    assert "model.hidden" not in trials[0].params
    started = optuna.load_study(study_name="joint", storage=sandbox.storage).user_attrs["started_from"]
    assert (started["study"], started["trial"], started["fix"]) == ("second", second.number, ["model.hidden"])
    assert started["best"] == baseline.params | second.params


def _find(settings: StudySettings, searched: Sequence[str]) -> WarmStart | None:
    return find_warm_start(StudyDatabase(settings.storage_url), settings, "criteria", searched)


@pytest.fixture
def find(storage_url: str) -> Find:
    """Return a function that finds the warm start of a study of the criteria agent."""

    def find_for(*searched: str, **settings: Any) -> WarmStart:
        given: dict[str, Any] = {"name": "next", "storage": storage_url, "from_": "first", **settings}
        warm_start = _find(StudySettings(**given), searched)
        assert warm_start is not None
        return warm_start

    return find_for


def _add(study: optuna.Study, value: float, **params: Any) -> None:
    kinds = {
        int: IntDistribution(0, 100),
        float: FloatDistribution(0.0, 100.0),
        str: CategoricalDistribution(("a", "b", '["a", "b"]')),
    }
    distributions = {name: kinds[type(param)] for name, param in params.items()}
    study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=value))


def test_points_are_the_best_distinct_values_of_the_searched_flags(study: optuna.Study, find: Find) -> None:
    for value, x, y in ((0.1, 1, "a"), (0.4, 2, "a"), (0.3, 2, "b"), (0.2, 3, "a")):
        _add(study, value, x=x, y=y)
    warm_start = find("x", "z")
    assert warm_start.points == [{"x": 2}, {"x": 3}, {"x": 1}]
    assert (warm_start.trial, warm_start.value, warm_start.best) == (1, 0.4, {"x": 2, "y": "a"})
    warm_start = find("x", "y", queue=2)
    assert warm_start.points == [{"x": 2, "y": "a"}, {"x": 2, "y": "b"}]
    warm_start = find("x", "y", fix=["x"])
    assert warm_start.points == [{"y": "a"}, {"y": "b"}]
    warm_start = find("z", queue=0)
    assert warm_start.points == []


def test_the_lowest_value_is_the_best_if_the_study_minimizes(storage_url: str, find: Find) -> None:
    study = optuna.create_study(study_name="loss", storage=storage_url, direction="minimize")
    for value in (0.3, 0.1, 0.2):
        _add(study, value, x=value)
    warm_start = find("x", from_="loss")
    assert warm_start.best == {"x": 0.1}


def test_a_fixed_flag_has_the_choice_and_not_its_label(study: optuna.Study, find: Find) -> None:
    _add(study, 0.5, y='["a", "b"]')
    _add(study, 0.4, y="b", x=1)
    warm_start = find(fix=["y", "x"])
    assert warm_start.fixed == {"y": ["a", "b"]}  # the best trial has no x, so the config's value stays


def test_flags_fixed_in_the_other_study_are_taken_over(study: optuna.Study, find: Find, storage_url: str) -> None:
    _add(study, 0.5, x=1)
    warm_start = find(fix=["x"])
    second = optuna.create_study(study_name="next", storage=storage_url, direction="maximize")
    second.set_user_attr("started_from", asdict(warm_start))
    _add(second, 0.6, y="a")
    warm_start = find("x", "y", name="third", from_="next")
    assert warm_start.best == warm_start.points[0] == {"x": 1, "y": "a"}


def test_a_study_that_cannot_be_started_from_is_rejected(study: optuna.Study, find: Find, storage_url: str) -> None:
    def problems(**settings: Any) -> list[str]:
        with pytest.raises(InputError) as caught:
            find("x", **settings)
        return caught.value.problems

    [line] = problems(from_="none")
    assert line.startswith("--study.from none: no such study in sqlite:")
    assert line.endswith("; there are: first")
    assert problems() == ["--study.from first: it has no complete trial; run `tune` for it first, or use another study"]
    _add(study, 0.5, hidden=1)
    assert problems(fix=["hiden", "hidden", "y"]) == [
        "--study.fix: hiden: first has no value of it; did you mean hidden?",
        "--study.fix: y: first has no value of it; remove it",
    ]
    assert problems(fix=["x"]) == [
        "--study.fix: it contains every flag of the search space; fix fewer, so that one is searched"
    ]
    [line] = problems()
    assert line.startswith("--study.from first: none of its trials has a value of a flag of this search space; ")
    refit = optuna.create_study(study_name="first-refit", storage=storage_url, direction="maximize")
    refit.set_user_attr("refit_of", "first")
    assert problems(from_="first-refit") == ["--study.from first-refit: it is a refit of first; use that study"]
    study.set_user_attr("agent", "evidence")
    assert problems() == ["--study.from first: it tunes evidence, and this study criteria; use one of the same agent"]
    optuna.create_study(study_name="two", storage=storage_url, directions=["maximize", "minimize"])
    assert problems(from_="two") == ["--study.from two: it has 2 objectives; use a study with one"]


def test_a_resumed_study_keeps_its_warm_start(study: optuna.Study, find: Find, storage_url: str) -> None:
    _add(study, 0.5, x=1)
    begun = optuna.create_study(study_name="next", storage=storage_url)
    first = find("x", narrow=0.5)
    assert find("x", narrow=0.5) == first  # as after a crash before the study stored its attributes
    begun.set_user_attr("started_from", asdict(first))
    begun.set_user_attr("agent", "criteria")
    _add(study, 0.6, x=2)
    assert find("x", narrow=0.5) == first
    for settings, line in (
        ({"narrow": 0.4}, "--study.narrow: got 0.4, but next began with 0.5; use the same, or"),
        ({"narrow": 0.5, "from_": None}, "--study.from: got None, but next began with first; use the same, or"),
        ({"narrow": 0.5, "fix": ["x"]}, "--study.fix: got ['x'], but next began with []; use the same, or"),
    ):
        with pytest.raises(InputError, match=re.escape(line)):
            find("x", **settings)
    plain = optuna.create_study(study_name="plain", storage=storage_url)
    plain.set_user_attr("agent", "criteria")
    assert _find(StudySettings(name="plain", storage=storage_url), ["x"]) is None
    with pytest.raises(InputError, match=r"--study\.from: got first, but plain began with None"):
        find("x", name="plain")


def test_points_of_a_study_on_other_data_are_tried_but_not_fixed_or_narrowed(study: optuna.Study, find: Find) -> None:
    about = {"monitor": "val_metric", "mode": "max", "data_fingerprint": "one"}
    for key, value in about.items():
        study.set_user_attr(key, value)
    _add(study, 0.5, x=1)
    tried = find("x")
    narrowed = find("x", "y", narrow=0.2, fix=["x"])
    assert tried.problems(about) == narrowed.problems(about) == []
    assert "cannot be compared" not in tried.line(about)
    assert narrowed.line(about) == (
        "starts from first, best 0.5000 in trial 0: first the defaults, then 0 of its best points, if they are in the "
        "narrowed ranges; ranges narrowed to 20% around its best values; fixed: x"
    )
    other = about | {"data_fingerprint": "two"}
    assert tried.problems(other) == []
    assert tried.line(other) == (
        "starts from first, best 0.5000 in trial 0: first the defaults, then 1 of its best points; it was tuned with "
        "data_fingerprint one (here two), so its values cannot be compared with those of this study"
    )
    assert narrowed.problems(other) == [
        "--study.narrow, --study.fix: first was tuned with data_fingerprint one (here two), so its best values "
        "may be bad ones here; remove these flags to try only its best points"
    ]


def test_study_that_was_measured_in_another_way_is_tried_but_not_narrowed(study: optuna.Study, find: Find) -> None:
    about = {"monitor": "val_metric", "mode": "max", "data_fingerprint": "one"}
    for key, value in {**about, "evaluation_flags": {"trainer.limit_val_batches": 1}}.items():
        study.set_user_attr(key, value)
    _add(study, 0.5, x=1)
    narrowed = find("x", "y", narrow=0.2)
    assert narrowed.problems({**about, "evaluation_flags": {"trainer.limit_val_batches": 1}}) == []
    [problem] = narrowed.problems({**about, "evaluation_flags": {"trainer.limit_val_batches": 1.0}})
    assert "first was tuned with trainer.limit_val_batches 1 (here 1.0)" in problem
