"""The one config: a LightningCLI of any LightningModule and any LightningDataModule, with `aug` beside them."""

import importlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch import Trainer as LightningTrainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import MLFlowLogger

from lightning_hpo.config.errors import config_problems
from lightning_hpo.config.trainer import Trainer
from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.exceptions import InputError, LightningHpoError

__all__ = ["AgentCLI", "as_yaml", "class_of", "flags", "read_yaml", "resolve", "with_flags"]

_DEFAULT_SEED = 17
_CHECKPOINT_WORDS = ("best", "last", "hpc", "registry")
_STUDY_SECTIONS = ("study", "search_space")
_FROM = "Another study of this database to start from: after the defaults, its best points come first."
_TUNE = (
    "Search: sample, train, prune, record, register. The flags of the study are --study.*; all others are those of "
    "`fit`, of which the search space names some."
)


class AgentCLI(LightningCLI):
    """LightningCLI for the agents, and for any other module and data module by class path.

    Args:
        args: Arguments as on the command line, or a config as a dictionary.
        run: Whether the first argument names what to run: fit, validate, test or predict.
        instantiate: Whether to make the objects; without it the config is only parsed.
        trainer_kwargs: What is set on the Trainer whatever the config says; `callbacks` are added to the config's.
        study: Class of the settings in the `study` section; without it the section is let pass unread.

    Raises:
        InputError: Every flag and key that cannot be used, a line each.
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
    ) -> None:
        self._instantiate = instantiate
        self._study = study
        self._trainer_kwargs = dict(trainer_kwargs or {})
        with warnings.catch_warnings():
            # Lightning warns when arguments are given in Python while sys.argv holds some: here they always are.
            warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
            super().__init__(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                trainer_class=Trainer,
                # Only where a log folder of its own takes it: elsewhere it would overwrite a config.yaml of the user's.
                save_config_callback=_SaveConfig if run and "fit" in args else None,
                save_config_kwargs={"overwrite": True},
                seed_everything_default=_DEFAULT_SEED,
                args=list(args) if isinstance(args, Sequence) else dict(args),
                run=run,
            )

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Make the parser; that of a config without a command is made once, since a study parses one a trial."""
        if add_subcommands or self._study is not None:
            super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
            return
        if AgentCLI._config_parser is None:
            super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
            AgentCLI._config_parser = self.parser
        self.parser = AgentCLI._config_parser

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make a parser that raises what it finds wrong, and takes no flag for its beginning."""
        kwargs.setdefault("prog", "lightning-hpo tune" if self._study is not None else "lightning-hpo")
        if self._study is not None:
            kwargs["description"] = _TUNE
        return super().init_parser(**kwargs, exit_on_error=False, allow_abbrev=False)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and say everything that is wrong at once."""
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
        """Add `aug`, hand the encoder's name to the data module, and let a study's sections pass."""
        parser.add_class_arguments(Augmentation, "aug")
        parser.link_arguments("model.init_args.name", "data.init_args.tokenizer")
        parser.link_arguments("aug", "data.init_args.aug", apply_on="instantiate")
        if self._study is not None:
            parser.add_class_arguments(self._study, "study", skip={"from_"})
            # Python takes no parameter of that name.
            (parser.groups or {})["study"].add_argument("--study.from", type=str | None, help=_FROM)
        else:
            parser.add_argument("--study", type=dict[str, Any] | None, help="Read by `tune` only.")
        parser.add_argument(
            "--search_space", type=dict[str, Any] | None, help="Ranges and choices by flag, for `tune`."
        )

    def instantiate_classes(self) -> None:
        """Make data, model and trainer, unless the config is only parsed."""
        if not self._instantiate:
            return
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            # jsonargparse wraps what a class raises in an error that quotes the whole config.
            if cause := _cause(error):
                raise cause from None
            raise

    def instantiate_trainer(self, **kwargs: Any) -> LightningTrainer:
        """The Trainer, with the caller's settings; `fit` alone keeps the best epoch by val_metric."""
        callbacks = self._trainer_kwargs.pop("callbacks", None)
        if callbacks is not None:
            self.trainer_defaults = {"callbacks": callbacks}
        elif self.subcommand == "fit":
            self.trainer_defaults = {"callbacks": self._default_callbacks()}
        return super().instantiate_trainer(**kwargs, **self._trainer_kwargs)

    def _default_callbacks(self) -> list[Callback]:
        trainer = self._get(self.config_init, "trainer")
        if trainer.enable_checkpointing is False:
            return []
        configured = trainer.callbacks or []
        own = [configured] if isinstance(configured, Callback) else configured
        if any(isinstance(callback, Checkpoint) for callback in own):
            return []
        return [ModelCheckpoint(monitor="val_metric", mode="max", filename="best", save_on_train_epoch_end=False)]

    def _parse_ckpt_path(self) -> None:
        """Leave the config as it is: Lightning would set the checkpoint's hyperparameters over the user's flags."""
        path = self.config.get(self.config.get("subcommand") or "", {}).get("ckpt_path")
        if path and path not in _CHECKPOINT_WORDS and not Path(path).is_file():
            raise InputError(f"--ckpt_path: there is no file {path}; a study keeps OUTDIR/STUDY/trial_N/best.ckpt")

    def _dump_config(self) -> None:
        """What `save_hyperparameters` reads; not validated again, as Lightning does it, since it was just parsed."""
        if not hasattr(self, "config_dump"):
            dump = self.parser.dump(self.config, skip_link_targets=False, skip_unset=False, skip_validation=True)
            config = read_yaml(dump)
            self.config_dump = config[self.subcommand] if self.subcommand else config

    def _set_seed(self) -> None:
        if self._instantiate:
            super()._set_seed()

    @property
    def values(self) -> dict[str, Any]:
        """The resolved config as plain values, without a study's sections and without what links fill in."""
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
                config = self.parser.dump(self.config, skip_none=False)
                logger.experiment.log_text(logger.run_id, config, self.config_filename)


def read_yaml(text: str) -> dict[str, Any]:
    """The config that a text in YAML holds."""
    # PyYAML's own reader takes ten times as long as libyaml, which its wheels bring along.
    config: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return config


def _cause(error: BaseException | None) -> LightningHpoError | None:
    while error is not None and not isinstance(error, LightningHpoError):
        error = error.__cause__ or error.__context__
    return error


def resolve(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The config with some flags set, every value checked against its flag's type.

    Args:
        base: A config.
        overrides: Value of each flag, by the flag's name without dashes, such as `model.optim.lr`.

    Raises:
        InputError: If a flag is unknown or refuses its value.
    """
    return AgentCLI(with_flags(base, overrides), instantiate=False).values


def with_flags(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The config with some flags set, nothing checked; the base stays as it is."""
    config = deepcopy(dict(base))
    for flag, value in overrides.items():
        _set(config, flag, value)
    return config


def _set(config: dict[str, Any], flag: str, value: Any) -> None:
    first, *rest = flag.split(".")
    path = [first, "init_args", *rest] if rest and "class_path" in (config.get(first) or {}) else [first, *rest]
    at = config
    for key in path[:-1]:
        at[key] = at.get(key) or {}
        at = at[key]
    at[path[-1]] = value


def class_of(section: Mapping[str, Any]) -> type:
    """The class that a section of a config names."""
    module, _, name = section["class_path"].rpartition(".")
    found: type = getattr(importlib.import_module(module), name)
    return found


def flags(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config's values by the names of their flags, such as `model.optim.lr`."""
    return dict(_flatten(config, ""))


def _flatten(config: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else key
        if key == "class_path":
            yield prefix, value
        elif isinstance(value, dict) and value:
            yield from _flatten(value, name)
        else:
            yield name, value


def as_yaml(config: Mapping[str, Any]) -> str:
    """The config as YAML, in its own order."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
