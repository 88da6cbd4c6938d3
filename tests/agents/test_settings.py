from typing import Any

import pytest

from lightning_hpo.agents.losses import Loss
from lightning_hpo.agents.network.heads import CriteriaHead, EvidenceHead
from lightning_hpo.agents.optim.optimizers import Optim
from lightning_hpo.agents.optim.schedules import Schedule
from lightning_hpo.agents.settings import Settings
from lightning_hpo.agents.spans.decoding import Decoding
from lightning_hpo.exceptions import InputError, raise_problems
from lightning_hpo.flag_types import Bounds

GROUPS: list[type[Settings]] = [CriteriaHead, EvidenceHead, Loss, Optim, Schedule, Decoding]


@pytest.mark.parametrize("group", GROUPS)
def test_defaults_are_valid(group: type[Settings]) -> None:
    assert group().problems() == []


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        (Optim(lr=0), ["--model.optim.lr"]),
        (Optim(lr=float("nan")), ["--model.optim.lr"]),
        (Optim(beta1=1, beta2=2, eps=-1), ["--model.optim.beta1", "--model.optim.beta2", "--model.optim.eps"]),
        (Optim(weight_decay=-1, layer_decay=0), ["--model.optim.weight_decay", "--model.optim.layer_decay"]),
        (Schedule(name="linea", warmup=0.7), ["--model.schedule.name", "--model.schedule.warmup"]),  # type: ignore[arg-type]
        (
            Loss(name="hinge", label_smoothing=0.6, gamma=-1),  # type: ignore[arg-type]
            ["--model.loss.name", "--model.loss.label_smoothing", "--model.loss.gamma"],
        ),
        (Loss(alpha=1.5), ["--model.loss.alpha"]),
        (EvidenceHead(layers=-1, hidden=0), ["--model.head.layers", "--model.head.hidden"]),
        (
            CriteriaHead(dropout=1, activation="x", pooling="y"),  # type: ignore[arg-type]
            ["--model.head.activation", "--model.head.dropout", "--model.head.pooling"],
        ),
        (
            Decoding(max_answer_tokens=0, null_threshold=float("nan")),
            ["--model.decoding.max_answer_tokens", "--model.decoding.null_threshold"],
        ),
    ],
)
def test_problems_name_the_flag(settings: Settings, flags: list[str]) -> None:
    assert [line.split(":")[0] for line in settings.problems()] == flags
    assert all("\n" not in line for line in settings.problems())


def test_read_accepts_settings_plain_values_and_none() -> None:
    settings = Optim(lr=1.0)
    assert Optim.read(settings) is settings
    assert Optim.read({"lr": 1.0}) == settings
    assert Optim.read(None) == Optim()


def test_read_lists_the_available_settings() -> None:
    with pytest.raises(InputError, match=r"--model.schedule.warm: no such setting; available: name, warmup"):
        Schedule.read({"warm": 0.1})


def test_problems_name_the_value_and_what_would_work() -> None:
    assert Optim(layer_decay=1.5).problems() == ["--model.optim.layer_decay: got 1.5; it must be from 0.01 to 1"]
    wrong: Any = "hinge"
    assert Loss(name=wrong).problems() == [
        "--model.loss.name: got 'hinge'; it must be one of cross_entropy, focal",
    ]


def test_bounds_are_shown_with_all_digits() -> None:
    assert repr(Bounds(0, 0.9999999)) == "from 0 to 0.9999999"
    assert repr(Bounds(1e-12, 1_000_000)) == "from 1e-12 to 1000000"


def test_bounds_are_inclusive() -> None:
    assert Loss(alpha=0).problems() == Loss(alpha=1).problems() == []
    assert Loss(alpha=1.5).problems() == ["--model.loss.alpha: got 1.5; it must be from 0 to 1"]


def test_raise_problems_raises_all_problems_in_one_error() -> None:
    raise_problems([])
    with pytest.raises(InputError) as caught:
        raise_problems(["one", "two"])
    assert caught.value.problems == ["one", "two"]
