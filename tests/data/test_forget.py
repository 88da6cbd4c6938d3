from pathlib import Path

import pytest

from lightning_hpo.cli import main
from lightning_hpo.data.forget import forget
from lightning_hpo.data.posts import read_posts
from lightning_hpo.exceptions import InputError, LightningHpoError
from tests.unchanged import unchanged

Captured = pytest.CaptureFixture[str]
_KEY = "0123456789abcdef" * 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with the caches of two files."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("posts.csv", "new.csv"):
        (folder / name).write_text(f"post_id,text\np1,text of {name}\n")
        read_posts(folder / name)
    return folder


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_command_removes_the_caches_and_nothing_else(folder: Path, capsys: Captured) -> None:
    size = sum(path.stat().st_size for path in folder.glob(".cache/*/*/*"))
    assert main(["forget", str(folder)]) == 0
    line = f"removed 4 files ({size} bytes) with copies of posts and tokens, of 2 post files in {folder}\n"
    assert tuple(capsys.readouterr()) == (line, "")
    assert _names(folder) == ["new.csv", "posts.csv"]
    assert main(["forget", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("removed 0 files (0 bytes) ")
    assert dict(read_posts(folder / "posts.csv")) == {"p1": "text of posts.csv"}


def test_leftovers_of_killed_processes_and_of_version_0_1_0_are_removed(folder: Path) -> None:
    (folder / "posts.csv").unlink()  # its cache stays until another file is read
    old = (f".cache/posts-2-{_KEY}.bin", f".cache/tmpab12_xyz/posts-2-{_KEY}.bin")
    for name in (
        *old,
        f".cache/lightning_hpo/posts.csv/tmp-ab/posts-3-{_KEY}.bin",
        ".cache/lightning_hpo/posts.csv/tmp-ab/lock",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert forget(folder).startswith("removed 8 files (")
    assert _names(folder) == ["new.csv"]


def test_files_of_others_stay(folder: Path) -> None:
    others = [".cache/pip/a", ".cache/mine.bin", ".cache/lightning_hpo/posts.csv/notes.txt", ".cache/tmpab12_xyz/mine"]
    for name in others:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / ".cache/lightning_hpo/elsewhere").symlink_to(folder)
    forget(folder)
    assert [name for name in _names(folder) if not (folder / name).is_dir()] == sorted(
        [*others, "new.csv", "posts.csv"]
    )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none", "no such folder; name the folder of posts.csv"),
        ("posts.csv", "a file; name the folder of posts.csv"),
        ("empty", "it has no posts and no cache of posts; name the folder of posts.csv"),
    ],
)
def test_other_folders_are_refused(folder: Path, capsys: Captured, name: str, problem: str) -> None:
    (folder / "empty/.cache/pip").mkdir(parents=True)
    with unchanged(folder):
        assert main(["forget", str(folder / name)]) == 2
    assert capsys.readouterr().err == f"error: forget: {folder / name}: {problem}\n"


@pytest.mark.parametrize("link", [".cache", ".cache/lightning_hpo"])
def test_link_to_another_folder_is_refused(folder: Path, tmp_path: Path, link: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (folder / link).rename(elsewhere)
    (folder / link).symlink_to(elsewhere)
    with (
        unchanged(tmp_path),
        pytest.raises(InputError, match=rf"^forget: .*{link} is a link to {elsewhere}; remove the"),
    ):
        forget(folder)


def test_file_that_cannot_be_removed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *, missing_ok: bool) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(
        LightningHpoError, match=r"^forget: .*\.(bin|npy) cannot be removed: Permission denied; run it as"
    ):
        forget(folder)
