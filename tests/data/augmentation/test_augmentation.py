import numpy as np
import pytest

from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.exceptions import InputError


@pytest.mark.parametrize(
    ("enabled", "p_apply", "share"), [(False, 1.0, 0.0), (True, 0.0, 0.0), (True, 1.0, 1.0), (True, 0.3, 0.3)]
)
def test_share_of_samples_drawn_is_p_apply(enabled: bool, p_apply: float, share: float) -> None:
    generator = np.random.default_rng(0)
    settings = Augmentation(enabled=enabled, p_apply=p_apply)
    assert np.mean([settings.applies(generator) for _ in range(2000)]) == pytest.approx(share, abs=0.03)


def test_all_invalid_values_are_reported_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Augmentation(methods=["swop", "delete", "delete"], p_apply=1.5, operations=0, max_share=0.0)
    flags = [problem.split(":")[0] for problem in caught.value.problems]
    assert flags == ["--aug.methods", "--aug.methods", "--aug.p_apply", "--aug.operations", "--aug.max_share"]
    assert "'swop' is not a method; did you mean swap? or choose from swap, delete, split" in caught.value.problems[0]
    with pytest.raises(InputError, match="got an empty list; choose from swap"):
        Augmentation(methods=[])


@pytest.mark.parametrize(
    ("settings", "augmented", "samples"),
    [
        (Augmentation(enabled=False, p_apply=1.0), 0.0, 1e6),
        (Augmentation(enabled=True, p_apply=0.0), 0.0, 1e6),
        (Augmentation(enabled=True, p_apply=0.1), 0.001, 1e6),
        (Augmentation(enabled=True, p_apply=0.1), 0.0, 199),
    ],
    ids=["off", "never", "some", "chance"],
)
def test_epoch_without_effect_is_allowed_if_expected_or_by_chance(
    settings: Augmentation, augmented: float, samples: float
) -> None:
    settings.require_effect(augmented, samples)


def test_epoch_without_effect_is_an_error() -> None:
    with pytest.raises(
        InputError, match=r"--aug\.methods: swap, delete changed none of the 200 samples .*; choose other"
    ):
        Augmentation(enabled=True, p_apply=0.1).require_effect(0.0, 200)
