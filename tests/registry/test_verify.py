from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.registry.register import register
from lightning_hpo.registry.verify import _tolerance
from lightning_hpo.study.workers import LocalWorkers
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.tracker import Tracker
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


def test_flipped_bit_of_a_weight_fails(tiny: StudySandbox, register_other: Callable[[], str]) -> None:
    source = str(tiny.client.get_model_version("verified-best-model", "2").source)
    weights = Path(source.removeprefix("file://"), "data/model.pt2")
    before = weights.read_bytes()
    content = bytearray(before)
    content[len(content) // 2] ^= 0b0100_0000
    weights.write_bytes(content)
    with pytest.raises(LightningHpoError) as caught:
        register_other()
    weights.write_bytes(before)
    assert str(caught.value) == (
        "models:/verified-best-model/2 is registered, but verification failed, so no alias is moved: the sha256 of "
        "data/model.pt2 differs from that of the logged file"
    )
    assert production(tiny, "verified") == "1"


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
