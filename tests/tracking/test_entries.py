import os
from pathlib import Path

import pytest

from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.entries import (
    Entry,
    EntryFile,
    LogConfig,
    LogMetrics,
    LogParams,
    LogText,
    SetStatus,
    StartRun,
)
from lightning_hpo.tracking.outbox import Outbox
from lightning_hpo.tracking.tracker import Tracker

ENTRIES: list[Entry] = [
    StartRun("1", "trial_0", {"optuna_trial": "0"}),
    LogParams({"model.optim.lr": 1e-3}),
    LogConfig({"model": {"name": "encoder"}}, "model: ...\n"),
    LogText("a\nb", "log.txt"),
    LogMetrics({"val_metric": 0.5}, 3),
    SetStatus("FINISHED", {}),
]


@pytest.fixture
def file(tmp_path: Path) -> EntryFile:
    return EntryFile(TrialFolder(tmp_path / "trial_0"))


def test_entries_are_read_as_they_were_written(file: EntryFile) -> None:
    assert list(file.read()) == []
    for entry in ENTRIES:
        file.append(entry)
    found = list(file.read())
    assert [entry for entry, _ in found] == ENTRIES
    assert found[-1][1] == file.whole == len(file.path.read_bytes())
    assert [entry for entry, _ in file.read(found[2][1])] == ENTRIES[3:]


def test_line_that_was_not_written_to_its_end_is_left_out_and_overwritten(file: EntryFile) -> None:
    file.append(ENTRIES[0])
    with file.path.open("ab") as stream:
        stream.write(b'{"call": "log_params"')
    assert [entry for entry, _ in file.read()] == ENTRIES[:1]
    file.append(ENTRIES[1])
    assert [entry for entry, _ in file.read()] == ENTRIES[:2]


def test_replaced_and_removed_entries_are_gone(file: EntryFile) -> None:
    file.append(ENTRIES[1])
    file.replace(ENTRIES[:1])
    assert [entry for entry, _ in file.read()] == ENTRIES[:1]
    assert file.read_state() == {}
    file.write_state({"sent": 7})
    assert file.read_state() == {"sent": 7}
    file.remove()
    assert (list(file.read()), file.read_state()) == ([], {})


@pytest.mark.parametrize(
    "damage",
    [
        *(b"\0" * 40, b'{"call": "log_met', b'{"call": "no such"}', b"[]", b'{"call": "log_text"}', b"[" * 100_000),
        b'{"call": "log_metrics", "metrics": {"val_metric": "high"}, "step": 0, "time_ms": 0}',
        b'{"call": "log_metrics", "metrics": {"val_metric": 0.5}, "step": "0", "time_ms": 0}',
        b'{"call": "log_text", "text": ["a"], "name": "x.txt"}',
        b'{"call": "set_status", "status": 1, "tags": {}, "time_ms": 0}',
        b'{"call": "log_params", "params": []}',
    ],
)
def test_damaged_line_at_the_end_counts_as_not_written(file: EntryFile, damage: bytes) -> None:
    file.append(ENTRIES[0])
    for end in (b"", b"\n"):
        with file.path.open("ab") as opened:
            opened.write(damage + end)
        assert [entry for entry, _ in file.read()] == ENTRIES[:1]
    file.append(ENTRIES[5])
    assert [entry for entry, _ in file.read()] == [ENTRIES[0], ENTRIES[5]]


def test_pipes_in_place_of_the_files_count_as_damaged(tmp_path: Path) -> None:
    file = EntryFile(TrialFolder(tmp_path))
    os.mkfifo(TrialFolder(tmp_path).outbox)
    os.mkfifo(TrialFolder(tmp_path).outbox_state)
    assert list(file.read()) == []
    assert file.read_state() == {"starting": True}


def test_values_that_are_no_numbers_and_tags_that_are_numbers_are_kept(file: EntryFile) -> None:
    entries: list[Entry] = [LogMetrics({"f1_SAD": float("inf"), "epoch": 1}, 1), SetStatus("RUNNING", {"gpu": 1})]  # type: ignore[dict-item]
    for entry in entries:
        file.append(entry)
    assert [entry for entry, _ in file.read()] == entries


@pytest.mark.parametrize(
    "damage",
    [
        *(b"", b"\0" * 20, b"\xff", b"[]", b'{"sent": 1', b"[" * 100_000, b'{"sent": "1"}', b'{"sent": -1}'),
        *(b'{"waiting": 3}', b'{"waiting": ["a"]}', b'{"run_id": 7, "sent": 1}', b'{"other": 1}'),
    ],
)
def test_damaged_state_lets_everything_be_sent_again_to_the_same_run(
    tmp_path: Path, tracker: Tracker, damage: bytes
) -> None:
    folder = TrialFolder(tmp_path / "trial_0")
    outbox = Outbox(folder, tracker)
    outbox.write(StartRun(tracker.experiment("criteria-first"), "trial_0", {"optuna_study": "a", "optuna_trial": "0"}))
    outbox.write(LogMetrics({"val_metric": 0.5}, 0))
    run_id = outbox.run_id
    folder.outbox_state.write_bytes(damage)
    again = Outbox(folder, tracker)
    assert again.pending
    assert again.send(now=True)
    assert again.run_id == run_id
    assert len(tracker.client.get_metric_history(str(run_id), "val_metric")) == 1
