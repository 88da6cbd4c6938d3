import os
from pathlib import Path

import pytest

from lightning_hpo.study_folder import StudyFolder, TrialFolder, fit_command, make_folder, read_file, write_whole


def test_only_folders_of_trials_are_listed(tmp_path: Path) -> None:
    for name in ("trial_0", "trial_10", "trial_1 copy", "trial_0.tar.gz", "trial_", "trial_x", "report"):
        (tmp_path / name).mkdir()
    assert [folder.number for folder in StudyFolder(tmp_path).trials()] == [0, 10]


@pytest.mark.parametrize("number", [0, 7, 1234])
def test_trial_folder_has_its_number(tmp_path: Path, number: int) -> None:
    assert StudyFolder(tmp_path).trial(number) == TrialFolder(tmp_path / f"trial_{number}")
    assert StudyFolder(tmp_path).trial(number).number == number


def test_files_of_an_earlier_version_keep_their_names(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    assert (folder.outbox.name, folder.outbox_state.name) == ("outbox.jsonl", "outbox.json")
    (tmp_path / "journal.jsonl").touch()
    (tmp_path / "journal.json").touch()
    assert (folder.outbox.name, folder.outbox_state.name) == ("journal.jsonl", "journal.json")


def test_only_files_of_a_limited_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    assert read_file(path) == b"content"
    with pytest.raises(ValueError, match="more than 6 bytes"):
        read_file(path, 6)
    os.truncate(path, 10**12)
    os.mkfifo(tmp_path / "pipe")
    for other in (path, tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="it is no file"):
            read_file(other)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "missing")


def test_folder_whose_id_cannot_be_read_has_none(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.write_study_id("abc")
    assert folder.study_id == "abc"
    folder.study_id_file.unlink()
    os.mkfifo(folder.study_id_file)
    assert folder.study_id is None


def test_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert path.read_text() == "old"
    write_whole(path, "new")
    assert path.read_text() == "new"


def test_written_file_is_synced_before_it_gets_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_sync(descriptor: int) -> None:
        fsync(descriptor)
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")

    def record_rename(source: Path, target: Path) -> None:
        replace(source, target)
        done.append(f"rename {source.name} {target.name}")

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_rename)
    folder = tmp_path / "study"
    make_folder(folder / "trial_0")
    assert done == ["sync study", f"sync {tmp_path.name}"]
    done.clear()
    write_whole(folder / "a", "new", keep_as=folder / "b")
    write_whole(folder / "a", lambda file: file.write(b"newer"), keep_as=folder / "b")
    written = ["sync a.partial", "rename a.partial a", "sync study"]
    assert done == [*written, "sync a.partial", "rename a b", *written[1:]]
    assert ((folder / "a").read_text(), (folder / "b").read_text()) == ("newer", "new")


@pytest.mark.parametrize("content", [b"", b"\0" * 33, b"\xff\xfe"])
def test_damaged_id_counts_as_none(tmp_path: Path, content: bytes) -> None:
    folder = StudyFolder(tmp_path)
    folder.write_study_id("5f1d")
    assert folder.study_id == "5f1d"
    folder.study_id_file.write_bytes(content)
    assert folder.study_id is None


def test_fit_command_quotes_the_path() -> None:
    assert fit_command(Path("my outputs/config.yaml")) == "lightning-hpo fit --config 'my outputs/config.yaml'"
