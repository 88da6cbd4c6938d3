"""LightningCLI of every command: any LightningModule, any LightningDataModule, and the augmentation (`aug`)."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch import Trainer as LightningTrainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import MLFlowLogger

from lightning_hpo.config.errors import config_problems
from lightning_hpo.config.flags import flags, read_yaml, with_flags
from lightning_hpo.config.lightning_private import ReplaceableCLI
from lightning_hpo.config.trainer import Trainer
from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.databases import masked
from lightning_hpo.exceptions import InputError, LightningHpoError
from lightning_hpo.library_output import write_library_output

__all__ = ["AgentCLI", "resolve"]

_DEFAULT_SEED = 17
_CHECKPOINT_WORDS = ("best", "last", "hpc", "registry")
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
    ) -> None:
        self._instantiate = instantiate
        self._study = study
        self._mlflow_checkpoint = mlflow_checkpoint
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
            super().parse_arguments(parser, args)
        except (ArgumentError, UnicodeDecodeError) as error:
            raise InputError(config_problems(self._names, args) or str(error).splitlines()[0]) from error

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
        except (ValueError, TypeError) as error:
            # jsonargparse wraps the errors of a class in one that quotes the whole config.
            if cause := _cause(error):
                raise cause from None
            raise

    def instantiate_trainer(self, **kwargs: Any) -> LightningTrainer:
        """Create the Trainer with the caller's settings. `fit` also keeps the best epoch by val_metric."""
        callbacks = self._trainer_kwargs.pop("callbacks", None)
        if callbacks is not None:
            self.trainer_defaults = {"callbacks": callbacks}
        elif self.subcommand == "fit":
            self.trainer_defaults = {"callbacks": self._default_callbacks()}
        trainer = super().instantiate_trainer(**kwargs, **self._trainer_kwargs)
        folder = getattr(trainer.logger, "log_dir", None)  # that of a CSVLogger or a TensorBoardLogger
        if self.subcommand and folder is not None:
            write_library_output(Path(folder) / "log.txt")
        return trainer

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
        path = self.config.get(self.config.get("subcommand") or "", {}).get("ckpt_path")
        if path and path not in _CHECKPOINT_WORDS and not Path(path).is_file():
            raise InputError(f"--ckpt_path: got {path}, which is no file; a study saves OUTDIR/STUDY/trial_N/best.ckpt")

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
    def values(self) -> dict[str, Any]:
        """The resolved config as plain values, without the sections of a study and without linked values."""
        text = self.parser.dump(self.config, skip_unset=False, skip_validation=True)
        return {key: value for key, value in read_yaml(text).items() if key not in (*_STUDY_SECTIONS, "config")}


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


def _cause(error: BaseException | None) -> LightningHpoError | None:
    while error is not None and not isinstance(error, LightningHpoError):
        error = error.__cause__ or error.__context__
    return error


def resolve(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with values by flag, such as `model.optim.lr`, after checking them against the flags' types.

    Raises:
        InputError: If a flag is unknown or its value is invalid.
    """
    return AgentCLI(with_flags(base, overrides), instantiate=False).values
