import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_hpo.agents.arrays import read_arrays, write_arrays
from lightning_hpo.agents.pair_outputs import PairOutputs


@pytest.mark.parametrize(
    "changed",
    [
        *({"keys": np.arange(3.0)}, {"keys": np.arange(2)}, {"keys": np.array(3)}, {"log_odds": np.array(["a"] * 3)}),
        *({"log_odds": np.zeros((3, 1), np.float32)}, {"other": np.zeros(3)}),
    ],
)
def test_file_with_other_types_and_shapes_counts_as_damaged(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "outputs.npz"
    _outputs([0.0, 1.0, 2.0]).save(path)
    found = read_arrays(path)
    assert found is not None
    assert PairOutputs.load(path) is not None
    write_arrays(path, found | changed)
    assert PairOutputs.load(path) is None


def _outputs(log_odds: object) -> PairOutputs:
    values = np.asarray(log_odds, np.float32)
    return PairOutputs(np.arange(len(values), dtype=np.int64) * 7 - 20, values)


def test_winner_of_16_bit_is_recognized_with_the_rounding_of_other_kernels_in_every_draw() -> None:
    """Its score differs by more than half a percent in many of these draws: a few pairs are close to the threshold."""
    generator = np.random.default_rng(0)
    moved = 0
    for _ in range(50):
        log_odds = generator.normal(-2, 3, 96)
        noise = generator.normal(0, 0.03, 96) * np.maximum(1.0, np.abs(log_odds) / 10)
        assert _outputs(log_odds).difference(_outputs(log_odds + noise), is_16_bit=True) == ""
        moved += bool(((log_odds > 0) != (log_odds + noise > 0)).any())
    assert moved >= 5


@pytest.mark.parametrize("share", [0.02, 1.0])
def test_other_weights_are_recognized(share: float) -> None:
    generator = np.random.default_rng(0)
    log_odds = generator.normal(-2, 3, 500)
    changed = np.where(generator.random(500) < share, generator.normal(-2, 3, 500), log_odds)
    line = _outputs(log_odds).difference(_outputs(changed), is_16_bit=True)
    assert line.startswith("its log odds differ from those of the trial by up to ")


def test_small_difference_everywhere_is_explained_by_16_bit_only() -> None:
    log_odds = np.linspace(-4, 4, 100)
    assert _outputs(log_odds).difference(_outputs(log_odds + 0.05), is_16_bit=True) == ""
    assert "(median 0.05)" in _outputs(log_odds).difference(_outputs(log_odds + 0.05), is_16_bit=False)
    assert "(median 0.2)" in _outputs(log_odds).difference(_outputs(log_odds + 0.2), is_16_bit=True)
    assert _outputs(log_odds).difference(_outputs(log_odds + 1e-5), is_16_bit=False) == ""


def test_pairs_may_have_another_order_but_must_be_the_same() -> None:
    one = _outputs([1.0, 2.0, 3.0])
    assert one.difference(PairOutputs(one.keys[::-1], one.log_odds[::-1]), is_16_bit=False) == ""
    assert one.difference(PairOutputs(one.keys + 1, one.log_odds), is_16_bit=False) == "the pairs are others"
    assert one.difference(_outputs([1.0, 2.0]), is_16_bit=False) == "the pairs are others"


def test_infinite_log_odds_of_pairs_without_a_span_are_equal_and_nan_is_not() -> None:
    one = _outputs([-math.inf, 1.0])
    assert one.difference(_outputs([-math.inf, 1.0]), is_16_bit=False) == ""
    assert one.difference(_outputs([0.0, 1.0]), is_16_bit=True)
    assert one.difference(_outputs([-math.inf, math.nan]), is_16_bit=True)
    assert _outputs([]).difference(_outputs([]), is_16_bit=False) == ""


def test_outputs_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "outputs.npz"
    one = _outputs([-math.inf, 1.5])
    one.save(path)
    found = PairOutputs.load(path)
    assert found is not None
    np.testing.assert_array_equal(found.keys, one.keys)
    np.testing.assert_array_equal(found.log_odds, one.log_odds)
    path.write_bytes(path.read_bytes()[:40])
    assert PairOutputs.load(path) is None
    assert PairOutputs.load(tmp_path / "missing") is None
