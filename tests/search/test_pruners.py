from collections.abc import Callable

import optuna
import pytest
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)

from lightning_hpo.exceptions import InputError
from lightning_hpo.search.pruners import build_pruner, check_pruner
from tests.study_sandbox import study_flags


@pytest.mark.parametrize("epochs", range(1, 21))
def test_the_default_pruner_can_prune_a_trial_of_any_length(epochs: int) -> None:
    check_pruner(build_pruner(None, epochs), reports=epochs)


@pytest.mark.parametrize("epochs", [-1, 0, 1])
def test_the_default_pruner_is_a_median_pruner(epochs: int) -> None:
    assert isinstance(build_pruner(None, epochs), MedianPruner)


@pytest.mark.parametrize(
    ("epochs", "warmup", "spared"), [(1, 0.0, 0), (2, 0.0, 1), (10, 0.2, 4), (10, 0.5, 5), (3, 1, 2)]
)
def test_the_default_pruner_spares_the_warm_up_and_the_first_third(epochs: int, warmup: float, spared: int) -> None:
    """A trial that is far behind is pruned only when it has reported once more."""
    study = optuna.create_study(direction="maximize", pruner=build_pruner(None, epochs, warmup))
    for _ in range(5):
        trial = study.ask()
        for step in range(epochs):
            trial.report(1.0, step)
        study.tell(trial, 1.0)
    late = study.ask()
    pruned = []
    for step in range(epochs):
        late.report(0.0, step)
        pruned.append(late.should_prune())
    assert pruned.index(True) == spared


def _patient(patience: int) -> BasePruner:
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        return PatientPruner(MedianPruner(), patience)


@pytest.mark.parametrize(
    ("make", "reports"),
    [
        (lambda: _patient(3), 4),
        (lambda: MedianPruner(n_warmup_steps=5), 5),
        (lambda: PercentilePruner(25.0, n_warmup_steps=9), 3),
        (lambda: SuccessiveHalvingPruner(min_resource=8), 6),
        (lambda: HyperbandPruner(min_resource=9, max_resource=27), 5),
    ],
)
def test_a_pruner_that_starts_too_late_is_rejected(make: Callable[[], BasePruner], reports: int) -> None:
    pruner = make()
    with pytest.raises(InputError, match=rf"^--study.pruner: {type(pruner).__name__} can never prune .* {reports} epo"):
        check_pruner(pruner, reports=reports)


@pytest.mark.parametrize(
    ("make", "reports"),
    [
        (lambda: _patient(3), 5),
        (lambda: MedianPruner(n_warmup_steps=5), 6),
        (lambda: PercentilePruner(25.0), 1),
        (lambda: SuccessiveHalvingPruner(), 2),
        (lambda: SuccessiveHalvingPruner(min_resource=3), 4),
        (lambda: HyperbandPruner(max_resource=9), 10),
        (lambda: ThresholdPruner(lower=0.0), 1),
        (lambda: ThresholdPruner(lower=-1000.0), 5),
        (lambda: ThresholdPruner(upper=1000.0), 5),
        (lambda: NopPruner(), 5),
    ],
)
def test_a_pruner_that_can_prune_is_accepted(make: Callable[[], BasePruner], reports: int) -> None:
    check_pruner(make(), reports=reports)


def test_the_check_restores_the_verbosity_of_optuna() -> None:
    before = optuna.logging.get_verbosity()
    check_pruner(MedianPruner(), reports=3)
    assert optuna.logging.get_verbosity() == before


def test_the_configured_pruner_is_created() -> None:
    flags = ["--study.pruner", "PercentilePruner", "--study.pruner.percentile", "20"]
    pruner = build_pruner(study_flags(*flags).pruner, 5)
    assert isinstance(pruner, PercentilePruner)
    assert isinstance(build_pruner(study_flags("--study.pruner", "NopPruner").pruner, 5), NopPruner)


def test_invalid_arguments_of_a_pruner_are_reported_in_one_line() -> None:
    flags = ["--study.pruner", "PercentilePruner", "--study.pruner.percentile", "200"]
    with pytest.raises(InputError) as caught:
        build_pruner(study_flags(*flags).pruner, 5)
    [line] = caught.value.problems
    assert line.startswith("--study.pruner: PercentilePruner does not accept its arguments: ")
    assert "Percentile must be between 0 and 100" in line


class _Failing(BasePruner):
    def __init__(self, module: str) -> None:
        self._module = module

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        raise ImportError(f"No module named {self._module!r}", name=self._module)


@pytest.mark.parametrize(
    ("module", "package", "what"),
    # The package index may have the second name, too: a stranger's.
    [("scipy.stats", "scipy", "pip install scipy"), ("our_tools.pruners", "our_tools", "install it")],
)
def test_an_exception_of_a_pruner_is_one_line(module: str, package: str, what: str) -> None:
    with pytest.raises(
        InputError, match=rf"^--study.pruner: _Failing needs the package {package}: {what}; or use another one$"
    ):
        check_pruner(_Failing(module), reports=3)
