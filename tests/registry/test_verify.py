import copy
import importlib.util
import json
import py_compile
import resource
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import torch
import yaml

from lightning_hpo.agents.pair_outputs import PairOutputs
from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.registry.register import register
from lightning_hpo.registry.scored_model import ScoredModel
from lightning_hpo.registry.verify import _limited_files, _tolerance, verify
from lightning_hpo.serving.checksums import DIGEST, combined_digest, file_digests, seal_of
from lightning_hpo.study.workers import LocalWorkers
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.tracker import Tracker
from tests.planted_program import plant_code
from tests.registry.conftest import copy_study, production
from tests.study_sandbox import StudySandbox
from tests.tiny import tiny_config, write_tiny_corpus, write_tiny_encoder


@pytest.fixture(scope="module")
def register_other(tiny: StudySandbox) -> Callable[[], str]:
    """Register both trials of a study. The fixture registers the second one again, and moves the alias to it."""
    study, other = copy_study(tiny, "verified")
    tracker, workers = Tracker(tiny.tracking_uri), LocalWorkers(1)
    for number in (None, other):
        register(study, tracker, workers, number=number)
    return lambda: register(study, tracker, workers, number=other, promote=True)


def test_changed_data_fail(tiny: StudySandbox, register_other: Callable[[], str]) -> None:
    posts = tiny.folder / "posts.csv"
    before = posts.read_text()
    posts.write_text(before + "p99,the dog is fine\n")
    with pytest.raises(LightningHpoError, match=r"no alias is moved: the data have changed since the trial was"):
        register_other()
    posts.write_text(before)
    assert production(tiny, "verified") == "1"


@pytest.fixture
def files(tiny: StudySandbox, register_other: Callable[[], str]) -> Iterator[Path]:
    """Return the folder of the second version, which is as it was after the test."""
    folder = Path(str(tiny.client.get_model_version("verified-best-model", "2").source).removeprefix("file://"))
    saved = tiny.folder / "copy of the model"
    shutil.copytree(folder, saved)
    yield folder
    shutil.rmtree(folder)
    saved.rename(folder)


def _flip_a_bit(folder: Path) -> None:
    weights = bytearray((folder / "data/model.pt2").read_bytes())
    weights[len(weights) // 2] ^= 0b0100_0000
    (folder / "data/model.pt2").write_bytes(weights)


class _Payload:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def _add_a_pickle(folder: Path) -> None:
    # MLflow's loader prefers it to model.pt2.
    torch.save(_Payload(folder.parent / "code has run"), folder / "data/model.pth")
    (folder / "data/pickle_module_info.txt").write_text("mlflow.pytorch.pickle_module")


def _plant_code(folder: Path) -> None:
    plant_code(folder / "data/model.pt2", folder.parent / "code has run")


def _add_a_link(folder: Path) -> None:
    (folder / "data/elsewhere").symlink_to(folder / "requirements.txt")


def _remove_a_file(folder: Path) -> None:
    (folder / "requirements.txt").unlink()


def _swap_the_texts(folder: Path) -> None:
    shutil.copytree(folder / "data/texts", folder / "swapped")
    settings = folder / "swapped/serving.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"threshold": 0.0}))
    path = folder / "MLmodel"
    model = yaml.safe_load(path.read_text())
    model["flavors"]["python_function"]["data"] = "swapped"
    path.write_text(yaml.safe_dump(model))


def _swap_and_seal_again(folder: Path) -> None:
    """Change the texts, and everything that MLflow stores about the files."""
    _swap_the_texts(folder)
    _seal_again(folder)


def _seal_again(folder: Path) -> None:
    path = folder / "MLmodel"
    model = yaml.safe_load(path.read_text())
    model["metadata"][DIGEST] = file_digests(folder)
    path.write_text(yaml.safe_dump(model))


def test_file_that_would_fill_the_disk_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=200_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    endless = tmp_path / "model.pt2"
    with endless.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(OSError, match="File too large"), _limited_files(tmp_path):
        shutil.copyfile(endless, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size <= 100_000
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == limits


@pytest.mark.parametrize(
    ("change", "file"),
    [
        (_flip_a_bit, "data/model.pt2"),
        (_plant_code, "data/model.pt2"),
        (_add_a_pickle, "data/model.pth"),
        (_add_a_link, "data/elsewhere"),
        (_remove_a_file, "requirements.txt"),
        (_swap_the_texts, "MLmodel"),
        (_swap_and_seal_again, "MLmodel"),
    ],
)
def test_changed_files_fail_and_run_no_code(
    tiny: StudySandbox,
    register_other: Callable[[], str],
    files: Path,
    change: Callable[[Path], None],
    file: str,
) -> None:
    change(files)
    # Whoever can change the files may change the tags, too.
    tiny.client.set_model_version_tag("verified-best-model", "2", DIGEST, seal_of(files))
    with pytest.raises(LightningHpoError) as caught:
        register_other()
    assert str(caught.value) == (
        "models:/verified-best-model/2 is registered, but verification failed, so no alias is moved: "
        f"{file} is not as it was logged: its sha256 differs, or there was no such file"
    )
    assert production(tiny, "verified") == "1"
    assert not (files.parent / "code has run").exists()


def test_version_that_somebody_else_has_added_is_not_loaded(tiny: StudySandbox) -> None:
    study, other = copy_study(tiny, "added", mlflow_model_uri=None, mlflow_model_seal=None)
    tracker, workers = Tracker(tiny.tracking_uri), LocalWorkers(1)
    register(study, tracker, workers)
    first = tiny.client.get_model_version("added-best-model", "1")
    folder, marker = tiny.folder / "added", tiny.folder / "code has run"
    shutil.copytree(str(first.source).removeprefix("file://"), folder)
    plant_code(folder / "data/model.pt2", marker)
    _seal_again(folder)
    run_id = study.trials[other].user_attrs["mlflow_run_id"]
    tiny.client.create_model_version("added-best-model", str(folder), run_id, {**first.tags, DIGEST: seal_of(folder)})
    assert "registered added-best-model version 3, verified" in register(study, tracker, workers, number=other)
    assert not marker.exists()


def test_code_that_python_has_cached_is_not_run(
    tiny: StudySandbox, register_other: Callable[[], str], files: Path
) -> None:
    (source,) = (files / "code").glob("*/exceptions.py")
    (source.parent / "__pycache__").mkdir(exist_ok=True)
    harmful = files.parent / "harmful.py"
    harmful.write_text(f"import pathlib; pathlib.Path({str(files.parent / 'code has run')!r}).touch()")
    cached = py_compile.compile(str(harmful), cfile=importlib.util.cache_from_source(str(source)))
    assert cached is not None
    stat = source.stat()
    header = bytearray(Path(cached).read_bytes())
    header[8:16] = struct.pack("<II", int(stat.st_mtime), stat.st_size)
    Path(cached).write_bytes(header)
    assert "verified" in register_other()
    assert not (files.parent / "code has run").exists()


def test_model_of_version_0_1_0_is_verified_by_the_digest_in_mlflow(
    tiny: StudySandbox, register_other: Callable[[], str], files: Path
) -> None:
    digests = yaml.safe_load((files / "MLmodel").read_text())["metadata"][DIGEST]
    tiny.client.set_model_version_tag("verified-best-model", "2", DIGEST, combined_digest(digests))
    study = optuna.load_study(study_name="verified", storage=tiny.storage)
    number = int(tiny.client.get_model_version("verified-best-model", "2").tags["optuna_trial"])
    study.set_user_attr(f"mlflow_model_seal_of_trial_{number}", None)
    version = tiny.client.get_model_version("verified-best-model", "2")
    trial = copy.deepcopy(study.trials[number])
    trial.user_attrs.pop("mlflow_model_seal", None)
    model = replace(ScoredModel.of_trial(study, trial), seal=version.tags[DIGEST])
    arguments = model, f"models:/{version.name}/{version.version}", Tracker(tiny.tracking_uri), LocalWorkers(1)
    assert verify(*arguments) == ""
    _flip_a_bit(files)
    assert "data/model.pt2 is not as it was logged" in verify(*arguments)


def test_model_whose_seal_only_mlflow_has_is_verified(tiny: StudySandbox) -> None:
    study, _ = copy_study(tiny, "older", mlflow_model_seal=None)  # as version 0.1.0 stored it
    arguments = study, Tracker(tiny.tracking_uri), LocalWorkers(1)
    assert "registered older-best-model version 1, verified" in register(*arguments)
    tiny.client.set_model_version_tag("older-best-model", "1", DIGEST, "0" * 64)
    with pytest.raises(LightningHpoError, match=r"verification failed, so no alias is moved: MLmodel is not as it was"):
        register(*arguments)


def test_outputs_tell_rounding_from_other_weights(tiny: StudySandbox, register_other: Callable[[], str]) -> None:
    study = optuna.load_study(study_name="verified", storage=tiny.storage)
    number = int(tiny.client.get_model_version("verified-best-model", "2").tags["optuna_trial"])
    folder = TrialFolder(Path(tiny.outdir, "tiny", f"trial_{number}"))
    before = folder.outputs.read_bytes()
    outputs = PairOutputs.load(folder.outputs)
    assert outputs is not None
    assert study.trials[number].value is not None
    try:
        PairOutputs(outputs.keys, outputs.log_odds + np.float32(1.0)).save(folder.outputs)
        with pytest.raises(
            LightningHpoError, match=r"moved: its log odds differ from those of the trial by up to 1 \("
        ):
            register_other()
        folder.outputs.unlink()  # as of version 0.1.0, whose trials are verified by their score
        assert "verified" in register_other()
    finally:
        folder.outputs.write_bytes(before)


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [(None, 1e-4), ("32-true", 1e-4), ("bf16-mixed", 5e-3), ("16-mixed", 5e-3), ("auto", 5e-3)],
)
def test_tolerance_is_larger_for_16_bit_precision(tmp_path: Path, precision: str | None, tolerance: float) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": {"precision": precision}}))
    assert _tolerance(TrialFolder(tmp_path)) == tolerance


def test_calibrated_model_is_verified_with_its_threshold(
    sandbox: StudySandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_encoder(sandbox.folder / "encoder")
    write_tiny_corpus(sandbox.folder)
    decoding: Any = {"null_policy": "calibrated", "null_threshold": 50.0, "top_k": 2}
    config = tiny_config("EvidenceAgent", "EvidenceDataModule", decoding=decoding)
    assert sandbox.tune("calibrated", "--study.n_trials", "1", config=config) == 0
    assert "registered evidence-best-model version 1, verified" in capsys.readouterr().err
