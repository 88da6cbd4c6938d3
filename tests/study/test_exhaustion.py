from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.search.samplers import build_sampler
from lightning_hpo.search.space import SearchSpace
from lightning_hpo.storage.attributes import StudyKey
from lightning_hpo.storage.optuna_private import pause_trial
from lightning_hpo.study.exhaustion import Exhaustion

LINE = "the sampler has sampled the whole search space: no further trial is started"


Make = Callable[..., Exhaustion]


@pytest.fixture
def exhaustion(study: optuna.Study, foreign_config: dict[str, Any]) -> Make:
    def make(choices: list[int], lines: list[str], *, endless: bool = False) -> Exhaustion:
        space = SearchSpace({"model.hidden": {"choices": choices}}, AgentCLI(foreign_config, instantiate=False).values)
        return Exhaustion(study, build_sampler(None, 17, space), lines.append, endless=endless)

    return make


def _add(study: optuna.Study, *sizes: int) -> None:
    for size in sizes:
        distribution = CategoricalDistribution([4, 2])
        study.add_trial(
            optuna.trial.create_trial(
                value=0.5, params={"model.hidden": size}, distributions={"model.hidden": distribution}
            )
        )


def test_end_is_reached_when_every_point_has_a_trial_and_none_runs_or_waits(
    study: optuna.Study, exhaustion: Make
) -> None:
    lines: list[str] = []
    _add(study, 4)
    assert not exhaustion([4, 2], lines).look(running=False)
    _add(study, 2)
    end = exhaustion([4, 2], lines)
    assert end.look(running=True)  # the running trial may yet be paused
    assert (end.reached, lines) == (False, [])
    pause_trial(study, study.ask())
    assert not end.look(running=False)
    study.tell(study.ask(), 0.5)
    assert end.look(running=False)
    assert (end.reached, lines) == (True, [LINE])
    assert exhaustion([4, 2], lines).reached  # also in the next command


def test_extended_range_reopens_the_study(study: optuna.Study, exhaustion: Make) -> None:
    study.set_user_attr(StudyKey.EXHAUSTED, True)
    _add(study, 4, 2)
    same, more = exhaustion([4, 2], []), exhaustion([4, 2, 8], [])
    same.reopen()
    more.reopen()
    assert (same.reached, more.reached) == (True, False)
    assert study.user_attrs[StudyKey.EXHAUSTED] is False


def test_trials_that_come_from_no_search_space_have_no_end(study: optuna.Study, exhaustion: Make) -> None:
    _add(study, 4, 2)
    assert not exhaustion([4, 2], [], endless=True).look(running=False)
