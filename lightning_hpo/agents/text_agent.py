"""Base class of the agents: an encoder with a head, made from flags."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from inspect import signature
from typing import Annotated, Any, ClassVar, Literal

from torch import nn
from transformers import PreTrainedModel

from lightning_hpo.agents.baselines import BaselineData
from lightning_hpo.agents.losses import Loss
from lightning_hpo.agents.network.dropout import quicken_dropout
from lightning_hpo.agents.network.encoder import checkpoint_gradients, load_encoder
from lightning_hpo.agents.network.encoder import freeze_layers as freeze
from lightning_hpo.agents.network.encoder import reinit_layers as reinit
from lightning_hpo.agents.network.encoder_checks import check_first_token, check_ids, check_length, check_text_encoder
from lightning_hpo.agents.network.lora import Lora, add_adapters, merge_adapters
from lightning_hpo.agents.network.quantization import Quantize, quantize_layers, quantize_problems
from lightning_hpo.agents.network.text_network import TextNetwork
from lightning_hpo.agents.optim.optimizers import Optim
from lightning_hpo.agents.optim.schedules import Schedule
from lightning_hpo.agents.post_scores import PostScores
from lightning_hpo.agents.settings import Settings
from lightning_hpo.agents.training import TrainedModule
from lightning_hpo.data.one_pass_windows import Form
from lightning_hpo.data.pair_data_module import PairDataModule
from lightning_hpo.exceptions import InputError, raise_problems
from lightning_hpo.flag_types import Bounds, type_problems

__all__ = ["TextAgent"]

_LORA, _OPTIM, _SCHEDULE, _LOSS = Lora(), Optim(), Schedule(), Loss()


class TextAgent(TrainedModule):
    """Base class of the agents.

    The agent calls the model through `self.network` only, so that the network of a registered model can replace it.

    Args:
        name: Encoder: a Hugging Face hub id such as roberta-base, or a local folder.
        revision: Branch, tag or commit of the encoder on the hub. Default: main. `tune` stores the commit in the config
            of each trial.
        dropout: Dropout of the hidden layers of the encoder. Usual: 0.1. Default: the value of the encoder.
        attention_dropout: Dropout of the attention weights of the encoder. Usual: 0.1. Default: the value of the
            encoder.
        freeze_layers: Number of encoder layers to freeze, counted from the input, together with the embeddings; 0
            freezes nothing. Usual: up to half of the layers.
        reinit_layers: Number of encoder layers to re-initialize, counted from the output: they are the most specific to
            the pretraining (Zhang et al. 2021). Usual: 0 to 4.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, but slower (Chen et al. 2016).
        compile: Train through torch.compile: some minutes at the start, then faster steps on a GPU.
        lora: Low-rank adapters, trained instead of the encoder; for large encoders.
        quantize: Store the weights of the encoder in 4 bits (4bit), which needs lora.r, an NVIDIA GPU and the extra
            `quantize` (Dettmers et al. 2023), or as they are (none).
        optim: The optimizer.
        schedule: The learning rate schedule.
        loss: The training loss.
        own_settings: Further groups of flags of the subclass, by name.
        own_flags: Its further flags, by name.

    Raises:
        InputError: If a value cannot be used, or the encoder cannot be loaded.
    """

    agent: ClassVar[str]
    form: Form = "pairs"
    LABELS: ClassVar[frozenset[str]] = frozenset()
    """Keys of a batch that the loss reads."""
    DATA_MODULE: ClassVar[str] = ""
    """The data module for the agent, for errors."""

    MEASURES: ClassVar[Mapping[str, tuple[str, ...]]] = {"val_loss": ("loss",)}
    """Arguments that change what a metric measures, by metric: a validation loss is that of the training."""

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        dropout: Annotated[float, Bounds(0, 0.95)] | None = None,
        attention_dropout: Annotated[float, Bounds(0, 0.95)] | None = None,
        freeze_layers: Annotated[int, Bounds(0, 1000)] = 0,
        reinit_layers: Annotated[int, Bounds(0, 1000)] = 0,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        lora: Lora = _LORA,
        quantize: Quantize = "none",
        optim: Optim = _OPTIM,
        schedule: Schedule = _SCHEDULE,
        loss: Loss = _LOSS,
        own_settings: Mapping[str, Settings],
        own_flags: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(compile=compile)
        self._lora, self.loss = Lora.read(lora), Loss.read(loss)
        self.optim, self.schedule = Optim.read(optim), Schedule.read(schedule)
        groups = {"lora": self._lora, "optim": self.optim, "schedule": self.schedule, "loss": self.loss, **own_settings}
        layers = {"freeze_layers": freeze_layers, "reinit_layers": reinit_layers}
        values = {"dropout": dropout, "attention_dropout": attention_dropout, **layers, "quantize": quantize}
        values |= own_flags or {}
        problems = self._type_problems(values) + _lora_problems(values, self._lora)
        raise_problems(problems + [line for group in groups.values() for line in group.problems()])
        # Plain values only, so that a checkpoint loads without unpickling classes of this package.
        flags = {"name": name, "revision": revision, **values}
        flags |= {"gradient_checkpointing": gradient_checkpointing, "compile": compile}
        self.save_hyperparameters({**flags, **{flag: asdict(group) for flag, group in groups.items()}}, logger=False)
        encoder = load_encoder(name, revision=revision, dropout=dropout, attention_dropout=attention_dropout)
        self.network: nn.Module = self._make_network(name, encoder, **layers, checkpoints=gradient_checkpointing)

    def _make_network(
        self, name: str, encoder: PreTrainedModel, *, freeze_layers: int, reinit_layers: int, checkpoints: bool
    ) -> TextNetwork:
        check_text_encoder(name, encoder)
        reinit(encoder, reinit_layers, freeze_layers)
        add_adapters(encoder, self._lora)
        freeze(encoder, freeze_layers)
        if checkpoints:
            checkpoint_gradients(encoder)
        head = self.make_head(encoder.config.hidden_size)
        check_first_token(encoder, getattr(head, "first_token", "unused"))
        network = self.network_class(encoder, head)
        quicken_dropout(network)
        if self.hparams["quantize"] == "4bit":
            quantize_layers(encoder)
        return network

    @classmethod
    def flag_problems(cls, values: Mapping[str, Any]) -> list[str]:
        """Return one line for each argument, given as plain values, that cannot be used. No encoder is loaded."""
        kinds = cls._kinds()
        defaults = {name: taken.default for kind in kinds for name, taken in signature(kind).parameters.items()}
        groups = [type(value).read(values.get(name)) for name, value in defaults.items() if isinstance(value, Settings)]
        problems = cls._type_problems(values) + _lora_problems(values, Lora.read(values.get("lora")))
        problems += [line for group in groups for line in group.problems()]
        return problems + Optim.read(values.get("optim")).missing()

    @classmethod
    def _kinds(cls) -> list[type["TextAgent"]]:
        """Return the class and its base classes: it may pass on arguments that its own signature does not name."""
        return [kind for kind in reversed(cls.__mro__) if issubclass(kind, TextAgent)]

    @classmethod
    def _type_problems(cls, values: Mapping[str, Any]) -> list[str]:
        return [line for kind in cls._kinds() for line in type_problems("--model", vars(kind).get("__init__"), values)]

    @property
    def network_class(self) -> type[TextNetwork]:
        """Class of the network, which takes the encoder and the head."""
        return TextNetwork

    @abstractmethod
    def make_head(self, width: int) -> nn.Module:
        """Build the head for an encoder with `width` features."""

    def baselines(self, datamodule: Any, split: Literal["val", "test"]) -> Mapping[str, PostScores]:
        """Return the scores of models that a trained one should beat, by their names.

        Args:
            datamodule: The data module, set up for the split.
            split: The split to score.
        """
        if not isinstance(datamodule, PairDataModule):
            return {}
        train, scored = datamodule.train_pairs, getattr(datamodule, f"{split}_pairs")
        return self.pair_baselines(BaselineData(train, scored, datamodule.corpus.posts, datamodule.corpus.criteria))

    def pair_baselines(self, data: BaselineData) -> Mapping[str, PostScores]:  # noqa: ARG002 - subclasses read it
        """Return the baselines of an agent over pairs. Default: none."""
        return {}

    @property
    def served_network(self) -> nn.Module:
        """The network to register, with its adapters merged into the weights."""
        return merge_adapters(self.network, self._lora)

    def prepare_data(self) -> None:
        """Check the length of the windows before any data are read."""
        length = getattr(self.trainer.datamodule, "max_length", None)  # type: ignore[attr-defined]
        if length is not None and isinstance(self.network, TextNetwork):
            check_length(self.network.encoder, length)

    def setup(self, stage: str) -> None:  # noqa: ARG002 - Lightning's argument
        """Check that the agent can read the data module's windows, labels and token ids."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, PairDataModule) and (problem := self._data_problem(data)):
            raise InputError(problem)
        largest = getattr(data, "largest_ids", None)
        if largest is not None and isinstance(self.network, TextNetwork):
            check_ids(self.network.encoder, *largest)

    def _data_problem(self, data: PairDataModule) -> str:
        """Return why the agent cannot read the batches of a data module, or an empty text."""
        given, own = type(data).__name__, type(self).__name__
        if data.LABELS and not self.LABELS <= data.LABELS:
            return f"--data: got {given}, which has no labels for {own}; use {self.DATA_MODULE}"
        if data.form != self.form:
            return (
                f"--data: got {given} in the form {data.form}, but {own} reads the form {self.form}; use "
                f"{self.DATA_MODULE}, without --data.form"
            )
        return ""


def _lora_problems(values: Mapping[str, Any], lora: Lora) -> list[str]:
    """Return one line for each argument that does not work with these adapters."""
    problems = quantize_problems(values.get("quantize", "none"), has_adapters=lora.r > 0)
    if lora.r and values.get("reinit_layers"):
        problems.append(
            f"--model.reinit_layers: got {values['reinit_layers']} with --model.lora.r {lora.r}, which does not train "
            "re-initialized weights; use 0"
        )
    return problems
