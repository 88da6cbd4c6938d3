"""Short run of `scripts/soak.py` with three kills."""

from pathlib import Path

from scripts.soak import soak


def test_three_kills_cause_no_errors(tmp_path: Path) -> None:
    lines: list[str] = []
    counted = soak(tmp_path, 3, [1], 17, lines.append, settings=["power"], trials=5)
    assert counted["kills"] == 3
    wrong = (
        *("trials lost", "trials doubled", "models doubled", "disagreements", "failed though unharmed"),
        *("steps doubled or missing", "differences"),
    )
    assert {what: counted[what] for what in wrong} == dict.fromkeys(wrong, 0), "\n".join(lines)
