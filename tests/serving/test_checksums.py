from pathlib import Path

from lightning_hpo.serving.checksums import changed_data, combined_digest, file_digests, first_changed_file, seal_of


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "MLmodel").write_text("metadata")
    (tmp_path / "data/model.pt2").write_bytes(bytes(range(256)))
    (tmp_path / "data/serving.json").write_text("{}")
    return tmp_path


def test_unchanged_files_pass(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    digests = file_digests(folder)
    assert list(digests) == ["data/model.pt2", "data/serving.json"]
    assert first_changed_file(folder, digests, seal_of(folder)) is None
    assert first_changed_file(folder, digests, combined_digest(digests)) is None


def test_file_with_flipped_bit_is_returned(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    digests = file_digests(folder)
    weights = bytearray((folder / "data/model.pt2").read_bytes())
    weights[100] ^= 0b1000
    (folder / "data/model.pt2").write_bytes(weights)
    assert first_changed_file(folder, digests, combined_digest(digests)) == "data/model.pt2"
    again = file_digests(folder)
    assert first_changed_file(folder, again, combined_digest(digests)) == "MLmodel"


def test_missing_file_is_returned(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    digests = file_digests(folder)
    (folder / "data/serving.json").unlink()
    assert first_changed_file(folder, digests, combined_digest(digests)) == "data/serving.json"


def test_changed_metadata_or_an_added_file_is_returned(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    digests, seal = file_digests(folder), seal_of(folder)
    (folder / "registered_model_meta").write_text("of MLflow")
    assert first_changed_file(folder, digests, seal) is None
    (folder / "data/model.pth").write_text("a pickle")
    assert first_changed_file(folder, digests, seal) == "data/model.pth"
    (folder / "MLmodel").write_text("other metadata")
    assert first_changed_file(folder, digests, seal) == "MLmodel"


def test_changes_by_python_and_mlflow_are_no_changed_data(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / "requirements.txt").write_text("torch")
    digests = file_digests(folder)
    (folder / "requirements.txt").write_text("torch==2.13.0")
    (folder / "code/__pycache__").mkdir(parents=True)
    (folder / "code/__pycache__/a.pyc").touch()
    assert changed_data(folder, digests) is None
    assert changed_data(folder, {}) == "data/model.pt2"
    (folder / "data/model.pth").write_text("a pickle")
    assert changed_data(folder, digests) == "data/model.pth"
    (folder / "data/model.pth").unlink()
    (folder / "data/serving.json").write_text("{ }")
    assert changed_data(folder, digests) == "data/serving.json"
