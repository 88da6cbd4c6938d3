import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import Param
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_param_name

from lightning_hpo.tracking.batches import allowed_keys
from lightning_hpo.tracking.tracker import Tracker


@given(keys=st.lists(st.text(max_size=300), unique=True, max_size=6))
def test_every_key_is_allowed_and_none_is_lost(keys: list[str]) -> None:
    allowed = allowed_keys(keys)
    assert list(allowed) == keys
    assert len(set(allowed.values())) == len(keys)
    for name in allowed.values():
        _validate_param_name(name)  # type: ignore[no-untyped-call]


def test_keys_of_flags_stay_as_they_are() -> None:
    keys = ["model.optim.lr", "data.aliases.SLEEP ISSUES", "val/f1", "a-b:c_d"]
    assert allowed_keys(keys) == {key: key for key in keys}


def test_param_with_odd_keys_reaches_its_run_with_all_others(tracker: Tracker, run_id: str) -> None:
    tracker.log_params(run_id, {"lr": 0.5, "data.aliases.Anhedonia (loss)": "A", "data.aliases.Anhedonia [loss]": "B"})
    assert tracker.client.get_run(run_id).data.params == {
        "lr": "0.5",
        "data.aliases.Anhedonia _loss_": "A",
        "data.aliases.Anhedonia _loss__2": "B",
    }


def test_metric_with_an_odd_key_reaches_its_run(tracker: Tracker, run_id: str) -> None:
    tracker.log_metrics(run_id, {"val_metric": 0.5, "f1 (macro)": 0.25}, step=3, time_ms=1)
    assert tracker.client.get_run(run_id).data.metrics == {"val_metric": 0.5, "f1 _macro_": 0.25}
    assert tracker.logged_steps(run_id, "f1 (macro)") == {3}


def test_refused_params_are_named_and_the_others_arrive(tracker: Tracker, run_id: str) -> None:
    tracker.client.log_batch(run_id, params=[Param("b", "1")])
    with pytest.raises(MlflowException, match=r"^b \(.*\)$"):
        tracker.log_params(run_id, {"a": 1, "b": 2, "c": 3})
    assert tracker.client.get_run(run_id).data.params == {"a": "1", "b": "1", "c": "3"}
