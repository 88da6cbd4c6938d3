from pathlib import Path

from lightning_hpo.serving.checksums import changed_file, file_digests, seal


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "MLmodel").write_text("what MLflow says of it")
    (tmp_path / "data/model.pt2").write_bytes(bytes(range(256)))
    (tmp_path / "data/serving.json").write_text("{}")
    return tmp_path


def test_nothing_has_changed(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    digests = file_digests(folder)
    assert list(digests) == ["data/model.pt2", "data/serving.json"]
    assert changed_file(folder, digests, seal(digests)) is None


def test_the_file_with_a_flipped_bit_is_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    digests = file_digests(folder)
    weights = bytearray((folder / "data/model.pt2").read_bytes())
    weights[100] ^= 0b1000
    (folder / "data/model.pt2").write_bytes(weights)
    assert changed_file(folder, digests, seal(digests)) == "data/model.pt2"
    again = file_digests(folder)
    assert changed_file(folder, again, seal(digests)) == "MLmodel"


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    digests = file_digests(folder)
    (folder / "data/serving.json").unlink()
    assert changed_file(folder, digests, seal(digests)) == "data/serving.json"
