"""The short form of `scripts/soak.py`: ten kills."""

from pathlib import Path

from scripts.soak import soak


def test_ten_kills_lose_double_and_change_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    counted = soak(tmp_path, kills=5, workers=[1, 2], seed=17, say=said.append)
    assert counted["kills"] == 10
    wrong = (
        *("trials lost", "trials doubled", "models doubled", "disagreements"),
        *("steps doubled or missing", "differences"),
    )
    assert {what: counted[what] for what in wrong} == dict.fromkeys(wrong, 0), "\n".join(said)
