"""Settings of the agents as flags of a LightningCLI that accepts any model by class path."""

from typing import Any

import pytest
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import ArgsType, LightningCLI

from lightning_hpo.agents import CriteriaAgent, EvidenceAgent, JointAgent

pytestmark = [
    pytest.mark.filterwarnings("ignore:LightningCLI's args parameter is intended"),
    # raised by Lightning's use of jsonargparse
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
]


class _Data(LightningDataModule):
    """A data module without data."""


def _parse(*flags: str) -> Any:
    args: ArgsType = ["--trainer.logger=false", *flags]
    return LightningCLI(
        LightningModule, _Data, subclass_mode_model=True, run=False, seed_everything_default=1, args=args
    )


@pytest.mark.parametrize("kind", [CriteriaAgent, EvidenceAgent, JointAgent])
def test_every_setting_is_a_flag(kind: Any, encoder_folder: str) -> None:
    cli = _parse(
        f"--model={kind.__module__}.{kind.__name__}",
        f"--model.name={encoder_folder}",
        "--model.dropout=0.2",
        "--model.freeze_layers=1",
        "--model.gradient_checkpointing=true",
        "--model.optim.lr=1e-3",
        "--model.schedule.name=cosine",
        "--model.head.layers=2",
        "--model.loss.name=focal",
    )
    model = cli.model
    assert isinstance(model, kind)
    assert model.optim.lr == 1e-3
    assert model.schedule.name == "cosine"
    assert model.loss.name == "focal"
    assert model.hparams["head"]["layers"] == 2
    assert model.hparams["dropout"] == 0.2
    assert model.hparams["freeze_layers"] == 1
    assert model.hparams["gradient_checkpointing"] is True


@pytest.mark.parametrize("flag", ["--model.optim.lrr=1", "--model.optim.lr=fast", "--model.head.pooling=sum"])
def test_unknown_flags_and_values_are_refused_before_loading(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        _parse("--model=lightning_hpo.agents.CriteriaAgent", "--model.name=none", flag)
    assert caught.value.code == 2
    assert flag.split("=")[0].split(".")[-1] in capsys.readouterr().err


@pytest.mark.parametrize("name", ["CriteriaAgent", "EvidenceAgent", "JointAgent"])
def test_help_describes_each_setting_and_its_bounds(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parse(f"--model.help=lightning_hpo.agents.{name}")
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "Peak learning rate",
        "Number of hidden layers",
        "as a share of all training steps",
        "Activation function",
        "1e-12 to 1000",
    ):
        assert part in text
    assert ("learned weighted mean" in text) == (name != "EvidenceAgent")
    assert ("Maximum length of a span" in text) == (name != "CriteriaAgent")
