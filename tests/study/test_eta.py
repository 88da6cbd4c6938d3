import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_hpo.study.eta import TimeEstimator, duration


def _eta(*trials: tuple[float, int], total: int = 40, workers: int = 1, epochs: int | None = 10) -> TimeEstimator:
    eta = TimeEstimator(total, workers, epochs)
    for seconds, validated in trials:
        eta.add(seconds, validated)
    return eta


def test_no_estimate_before_a_trial_has_ended() -> None:
    assert _eta().expected(prunes=True) is None
    assert _eta().left([10.0]) is None


def test_first_trial_gives_an_estimate() -> None:
    assert _eta((300, 10)).expected(prunes=True) == (
        "about 3 h 15 min for the 39 trials left (5 min each); pruning shortens it"
    )
    assert _eta((300, 10), total=2).expected(prunes=False) == "about 5 min for the last trial left (5 min each)"


def test_several_workers_train_in_rounds() -> None:
    # 39 trials by 4 are 10 rounds.
    assert _eta((300, 10), workers=4).expected(prunes=False) == (
        "about 50 min for the 39 trials left (5 min each, 4 at a time)"
    )
    assert "(5 min each, 2 at a time)" in str(_eta((300, 10), total=3, workers=4).expected(prunes=False))


def test_pruned_trial_counts_by_its_epochs() -> None:
    cost = _eta((60, 2), total=3).expected(prunes=True)
    assert cost == "about 10 min for the 2 trials left (5 min each); pruning shortens it"
    assert "(1 min each)" in str(_eta((60, 2), total=3, epochs=None).expected(prunes=False))


def test_complete_study_has_no_estimate() -> None:
    assert _eta((300, 10), total=1).expected(prunes=True) is None


def test_time_left_subtracts_what_running_trials_have_trained() -> None:
    eta = _eta((100, 10), (50, 5), total=4)
    assert eta.left([]) == 150
    assert eta.left([25.0]) == 125
    assert eta.left([500.0]) == 75  # it has taken longer than others: it may end at any moment


def test_time_left_with_several_workers() -> None:
    assert _eta((100, 10), total=6, workers=2).left([]) == 300
    assert _eta((100, 10), total=6, workers=2).left([40.0, 90.0]) == 210
    assert _eta((100, 10), total=2, workers=4).left([30.0]) == 70


def test_number_of_trials_without_end_costs_no_time() -> None:
    eta = _eta((100, 10), total=10**18, workers=3)
    assert eta.left([50.0]) == pytest.approx(100 * 10**18 / 3)
    assert str(eta.expected(prunes=False)).startswith("about ")


@given(
    st.integers(1, 60), st.integers(1, 8), st.lists(st.floats(0, 200), max_size=8), st.floats(1, 100), st.integers(1, 5)
)
@settings(deadline=None, derandomize=True, database=None)
def test_what_is_left_is_between_a_perfect_share_and_one_trial_more(
    to_go: int, workers: int, running: list[float], mean: float, ended: int
) -> None:
    running = running[: min(workers, to_go)]
    eta = _eta(*[(mean, 10)] * ended, total=to_go + ended, workers=workers)
    work = (to_go - len(running)) * mean + sum(max(0.0, mean - seconds) for seconds in running)
    left = eta.left(running)
    assert left is not None
    assert work / workers - 1e-6 <= left <= work / workers + mean + 1e-6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (100, "2 min"),
        (3599, "1 h"),
        (12000, "3 h 20 min"),
        (86400 * 53 + 7200, "53 d 2 h"),
    ],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
