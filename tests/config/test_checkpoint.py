from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_hpo.config.checkpoint import check_checkpoint, check_path
from lightning_hpo.exceptions import InputError
from tests.foreign import ForeignModule


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
@pytest.mark.parametrize("path", [None, "best", "last", "none.ckpt"])
def test_evaluation_without_the_file_of_a_checkpoint_is_refused(
    command: str, path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        check_path(command, path)
    [line] = caught.value.problems
    assert line.startswith("--ckpt_path: ")
    assert "OUTDIR/STUDY/trial_N/best.ckpt" in line


@pytest.mark.parametrize("path", [None, "last"])
def test_fit_needs_no_checkpoint(path: str | None) -> None:
    check_path("fit", path)


@pytest.mark.parametrize("path", ["best", "hpc", "none.ckpt"])
def test_fit_from_a_missing_checkpoint_is_refused(path: str) -> None:
    with pytest.raises(InputError, match=rf"^--ckpt_path: got {path}, which is no file; "):
        check_path("fit", path)


def _saved(folder: Path, **content: Any) -> str:
    path = str(folder / "x.ckpt")
    torch.save({"state_dict": ForeignModule().state_dict(), "optimizer_states": [], "loops": {}, **content}, path)
    return path


@pytest.mark.parametrize("resumes", [True, False])
def test_checkpoint_of_the_same_module_is_accepted(resumes: bool, tmp_path: Path) -> None:
    check_checkpoint(_saved(tmp_path), ForeignModule(), resumes=resumes)


def test_weights_are_enough_unless_a_training_is_resumed(tmp_path: Path) -> None:
    path = str(tmp_path / "x.ckpt")
    torch.save({"state_dict": ForeignModule().state_dict()}, path)
    check_checkpoint(path, ForeignModule(), resumes=False)
    with pytest.raises(InputError, match="holds weights only, from which no training can be resumed"):
        check_checkpoint(path, ForeignModule(), resumes=True)


class _Fitted(ForeignModule):
    """Module that saves a text, as bytes."""

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self.text = text

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor(list(self.text), dtype=torch.uint8)


def test_extra_state_may_have_another_shape(tmp_path: Path) -> None:
    path = _saved(tmp_path, state_dict=_Fitted(b"fitted").state_dict())
    check_checkpoint(path, _Fitted(b"not yet"), resumes=False)
    with pytest.raises(InputError, match="the model lacks 1 of its tensors"):
        check_checkpoint(path, ForeignModule(), resumes=False)


def test_checkpoint_of_another_size_or_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is of another model: 3 tensors have another shape"):
        check_checkpoint(_saved(tmp_path), ForeignModule(hidden=8), resumes=False)
    other = _saved(tmp_path, state_dict={"w": torch.zeros(1)}, hyper_parameters={"name": "roberta-base"})
    with pytest.raises(InputError) as caught:
        check_checkpoint(other, ForeignModule(), resumes=False)
    [line] = caught.value.problems
    assert "is of another model, with the encoder roberta-base: it lacks 4 tensors of the model, the model" in line


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x03\x04", "pickle", {"weights": 1}, [1]])
def test_file_that_is_no_checkpoint_is_refused_without_unpickling(content: Any, tmp_path: Path) -> None:
    path, ran = tmp_path / "x.ckpt", tmp_path / "ran"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"state_dict": {}, "loops": _Touch(ran)} if content == "pickle" else content, path)
    with pytest.raises(InputError, match=r"^--ckpt_path: .*x\.ckpt (cannot be read as|is no) ") as caught:
        check_checkpoint(str(path), ForeignModule(), resumes=False)
    assert len(str(caught.value).splitlines()) == 1
    assert not ran.exists()


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)
