"""LightningCLI of every command: any LightningModule, any LightningDataModule, and the augmentation (`aug`)."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch import Trainer as LightningTrainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import MLFlowLogger

from lightning_hpo.config.checkpoint import check_checkpoint, check_path
from lightning_hpo.config.errors import config_problems
from lightning_hpo.config.flags import flags, read_yaml, with_flags
from lightning_hpo.config.lightning_private import ReplaceableCLI
from lightning_hpo.config.previous_version import with_previous_split
from lightning_hpo.config.trainer import Trainer, one_line_errors, trainer_problem
from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.databases import masked
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.terminal.library_output import write_library_output

__all__ = ["AgentCLI", "resolve"]

_DEFAULT_SEED = 17
_STUDY_SECTIONS = ("study", "search_space")
_FROM = "Study in the same database to start from. Its best points are tried after the config's own values."
_TUNE = (
    "Run or resume a study: sample, train, prune, record and register. --study.* are the settings of the study. All "
    "other flags are those of `fit`; `search_space` gives ranges or choices for some of them."
)


class AgentCLI(ReplaceableCLI):
    """LightningCLI for the agents, and for any other module and data module by class path.

    Args:
        args: Command-line arguments, or a config as a dictionary.
        run: Whether the first argument is a subcommand: fit, validate, test or predict.
        instantiate: Whether to create the objects. Otherwise the config is only parsed.
        trainer_kwargs: Trainer arguments that override the config; `callbacks` are added to the config's.
        study: Class of the settings in the `study` section. Without it, the section is ignored.
        mlflow_checkpoint: Creates the checkpoint callback of `fit` if the config has an MLFlowLogger.
        interruption: Callback that stops the Trainer on a signal.

    Raises:
        InputError: If flags or keys are invalid, with one line for each.
    """

    _config_parser: ClassVar[LightningArgumentParser | None] = None

    def __init__(
        self,
        args: Sequence[str] | Mapping[str, Any],
        *,
        run: bool = False,
        instantiate: bool = True,
        trainer_kwargs: Mapping[str, Any] | None = None,
        study: type | None = None,
        mlflow_checkpoint: Callable[[], Checkpoint] | None = None,
        interruption: Callback | None = None,
    ) -> None:
        self._instantiate = instantiate
        self._study = study
        self._mlflow_checkpoint = mlflow_checkpoint
        self._interruption = interruption
        self._trainer_kwargs = dict(trainer_kwargs or {})
        with warnings.catch_warnings():
            # Lightning warns if arguments are passed in Python while sys.argv is not empty; here both are normal.
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
            super().__init__(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                trainer_class=Trainer,
                # Only `fit` has a log folder; other commands would overwrite a config.yaml of the user.
                save_config_callback=_SaveConfig if run and "fit" in args else None,
                save_config_kwargs={"overwrite": True},
                seed_everything_default=_DEFAULT_SEED,
                args=list(args) if isinstance(args, Sequence) else dict(args),
                run=run,
            )

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Create the parser; reuse the one without subcommands, since a study parses a config for each trial."""
        if add_subcommands or self._study is not None:
            super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
            return
        if AgentCLI._config_parser is None:
            super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
            AgentCLI._config_parser = self.parser
        self.parser = AgentCLI._config_parser

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Create a parser that raises its errors and does not accept abbreviated flags."""
        kwargs.setdefault("prog", "lightning-hpo tune" if self._study is not None else "lightning-hpo")
        if self._study is not None:
            kwargs["description"] = _TUNE
        return super().init_parser(**kwargs, exit_on_error=False, allow_abbrev=False)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments and report all errors at once."""
        try:
            super().parse_arguments(parser, with_previous_split(args))
        except (ArgumentError, UnicodeDecodeError) as error:
            raise InputError(config_problems(self._names, args) or str(error).splitlines()[0]) from error
        # Defaults of callbacks, such as the interval of a Timer and the device of a StochasticWeightAveraging.
        self.config = _plain(self.config)

    def _names(self, arguments: list[str]) -> list[str]:
        config = self.parser.parse_args(arguments)
        parser = self._parser(config.get("subcommand"))
        config = config[config.subcommand] if config.get("subcommand") else config
        return list(flags(yaml.safe_load(parser.dump(config, skip_unset=False, skip_validation=True))))

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add `aug` and the sections of a study, and pass the encoder's name and `aug` to the data module."""
        parser.add_class_arguments(Augmentation, "aug")
        parser.link_arguments("model.init_args.name", "data.init_args.tokenizer")
        parser.link_arguments("model.init_args.revision", "data.init_args.tokenizer_revision")
        parser.link_arguments("model.init_args.form", "data.init_args.form")
        parser.link_arguments("aug", "data.init_args.aug", apply_on="instantiate")
        if self._study is not None:
            parser.add_class_arguments(self._study, "study", skip={"from_"})
            # `from` is a Python keyword, so it cannot be a field of the settings class.
            (parser.groups or {})["study"].add_argument("--study.from", type=str | None, help=_FROM)
        else:
            parser.add_argument("--study", type=dict[str, Any] | None, help="Read by `tune` only.")
        parser.add_argument(
            "--search_space", type=dict[str, Any] | None, help="Ranges and choices by flag, for `tune`."
        )

    def instantiate_classes(self) -> None:
        """Create data module, model and Trainer, unless the config is only parsed."""
        if not self._instantiate:
            return
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, MisconfigurationException) as error:
            # jsonargparse wraps the errors of a class in one that quotes the whole config.
            cause = _cause(error)
            if isinstance(cause, MisconfigurationException):  # of a callback
                raise InputError(trainer_problem(cause, self.trainer_values, "callbacks")) from error
            if cause is not None:
                raise cause from None
            raise

    def instantiate_trainer(self, **kwargs: Any) -> LightningTrainer:
        """Create the Trainer with the caller's settings. `fit` also keeps the best epoch by val_metric."""
        callbacks = self._trainer_kwargs.pop("callbacks", None)
        if callbacks is None:
            callbacks = self._default_callbacks() if self.subcommand == "fit" else []
        last = [] if self._interruption is None else [self._interruption]
        self.trainer_defaults = {"callbacks": [*callbacks, *last]}
        try:
            trainer = super().instantiate_trainer(**kwargs, **self._trainer_kwargs)
        # Lightning's checks of the arguments. No data have been read yet, so the messages quote no post.
        except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
            raise InputError(trainer_problem(error, self.trainer_values)) from error
        if self.subcommand:
            trainer.callbacks.insert(0, _LibraryLog())  # type: ignore[attr-defined]
        return trainer

    def train(self, checkpoint: Path | None = None) -> None:
        """Train, and resume from a checkpoint if there is one.

        Raises:
            InputError: If the Trainer's arguments or callbacks do not fit each other, the module or the data.
        """
        with one_line_errors(self.trainer, self.trainer_values):
            self.trainer.fit(self.model, self.datamodule, ckpt_path=checkpoint, weights_only=True)

    def run_subcommand(self, command: str) -> None:
        """Check the checkpoint, then run the command."""
        given = self.config[command]
        path = given.get("ckpt_path")
        # With `--weights_only false`, the user trusts the file, whatever it holds.
        if path and Path(path).is_file() and given.get("weights_only") is not False:
            check_checkpoint(path, self.model, resumes=command == "fit")
        with one_line_errors(self.trainer, self.trainer_values):
            super().run_subcommand(command)

    def _default_callbacks(self) -> list[Callback]:
        trainer = self.created("trainer")
        if trainer.enable_checkpointing is False:
            return []
        configured = trainer.callbacks or []
        own = [configured] if isinstance(configured, Callback) else configured
        if any(isinstance(callback, Checkpoint) for callback in own):
            return []
        loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
        if self._mlflow_checkpoint is not None and any(isinstance(logger, MLFlowLogger) for logger in loggers):
            return [self._mlflow_checkpoint()]
        return [ModelCheckpoint(monitor="val_metric", mode="max", filename="best", save_on_train_epoch_end=False)]

    def check_ckpt_path(self) -> None:
        """Keep the config unchanged: Lightning would override the user's flags by the checkpoint's hyperparameters."""
        command = self.config.get("subcommand")
        if command:
            check_path(command, self.config[command].get("ckpt_path"))

    def keep_config_dump(self) -> None:
        """Keep the config for `save_hyperparameters`. Unlike Lightning, do not validate it again after parsing."""
        if not hasattr(self, "config_dump"):
            dump = self.parser.dump(self.config, skip_link_targets=False, skip_unset=False, skip_validation=True)
            config = read_yaml(dump)
            self.config_dump = config[self.subcommand] if self.subcommand else config

    def seed(self) -> None:
        """Seed only if objects are created: parsing alone must not change the random state."""
        if self._instantiate:
            super().seed()

    @property
    def trainer_values(self) -> dict[str, Any]:
        """The `trainer` section of the config."""
        config = self.config[self.config.subcommand] if self.config.get("subcommand") else self.config
        values: dict[str, Any] = config.trainer.as_dict()
        return values

    @property
    def values(self) -> dict[str, Any]:
        """The resolved config as plain values, without the sections of a study and without linked values."""
        text = self.parser.dump(self.config, skip_unset=False, skip_validation=True)
        return {key: value for key, value in read_yaml(text).items() if key not in (*_STUDY_SECTIONS, "config")}


class _LibraryLog(Callback):
    """Writes the output of libraries to `log.txt` in the log folder of a CSVLogger or a TensorBoardLogger."""

    def setup(self, trainer: LightningTrainer, pl_module: LightningModule, stage: str) -> None:
        """Start to write, now that the logger has made its folder."""
        del pl_module, stage
        folder = getattr(trainer.logger, "log_dir", None)
        if folder is not None:
            write_library_output(Path(folder) / "log.txt")


class _SaveConfig(SaveConfigCallback):
    """Saves the config to the log folder, or to the run of an MLFlowLogger, which has no log folder."""

    def setup(self, trainer: LightningTrainer, pl_module: LightningModule, stage: str) -> None:
        """Save the config at the start of a fit."""
        self.save_to_log_dir = trainer.log_dir is not None
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: LightningTrainer, pl_module: LightningModule, stage: str) -> None:
        """Log the config as an artifact of the MLflow run, if there is one."""
        del pl_module, stage
        for logger in trainer.loggers:
            if isinstance(logger, MLFlowLogger) and logger.run_id is not None:
                config = masked(self.parser.dump(self.config, skip_none=False))
                logger.experiment.log_text(logger.run_id, config, self.config_filename)


def _plain(value: Any) -> Any:
    """Replace the values of a parsed config that YAML cannot hold, inside it; and return a single value."""
    if isinstance(value, Namespace):
        for key, inner in vars(value).items():
            setattr(value, key, _plain(inner))
    elif isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.value if isinstance(value, Enum) else str(value) if isinstance(value, torch.device) else value


def _cause(error: BaseException | None) -> LightningHpoError | MisconfigurationException | None:
    while error is not None and not isinstance(error, LightningHpoError | MisconfigurationException):
        error = error.__cause__ or error.__context__
    return error


def resolve(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with values by flag, such as `model.optim.lr`, after checking them against the flags' types.

    Raises:
        InputError: If a flag is unknown or its value is invalid.
    """
    return AgentCLI(with_flags(base, overrides), instantiate=False).values
