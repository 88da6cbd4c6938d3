import os
from pathlib import Path

import pytest

from lightning_hpo.callbacks import sign_of_life
from lightning_hpo.callbacks.sign_of_life import SignOfLife
from tests.callbacks.conftest import Fit, Terminator


def test_every_batch_and_the_start_and_end_of_a_fit_give_a_sign(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_of_life, "_EVERY_S", 0.0)
    batches, seen = Terminator("nowhere", 0, 0), []
    fit([0.25, 0.5], [batches, SignOfLife(tmp_path / "sign", lambda: seen.append(len(batches.seen)))])
    sanity = [0, 0]
    assert seen == [0, *sanity, *range(1, 2 * (4 + 4) + 1), 2 * (4 + 4)]
    assert (tmp_path / "sign").stat().st_size == 0


def test_signs_are_given_at_most_every_ten_seconds(fit: Fit, tmp_path: Path) -> None:
    seen: list[None] = []
    fit([0.25, 0.5], [SignOfLife(tmp_path / "sign", lambda: seen.append(None))])
    assert len(seen) == 1


def test_time_of_the_file_is_that_of_the_last_sign(fit: Fit, tmp_path: Path) -> None:
    file = tmp_path / "sign"
    file.touch()
    os.utime(file, (1.0, 1.0))
    fit([0.25], [SignOfLife(file, lambda: None)])
    assert file.stat().st_mtime > 1.0


def test_file_that_cannot_be_written_stops_no_training(fit: Fit, tmp_path: Path) -> None:
    assert fit([0.25], [SignOfLife(tmp_path / "none" / "sign", lambda: None)]).current_epoch == 1
