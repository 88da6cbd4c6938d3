"""Configs that the package contains, to start from."""

from importlib import resources
from pathlib import Path

from lightning_hpo.exceptions import InputError

__all__ = ["write_starter_configs"]


def write_starter_configs(folder: Path) -> list[Path]:
    """Write the configs and search spaces into `folder`/configs, and return their paths.

    Raises:
        InputError: A file exists, or the folder cannot be written. Nothing has been written if a file exists.
    """
    with resources.as_file(resources.files("lightning_hpo.config") / "starter") as source:
        targets = {path: folder / "configs" / path.relative_to(source) for path in sorted(source.rglob("*.yaml"))}
        existing = [target for target in targets.values() if target.exists()]
        if existing:
            raise InputError(f"init: {existing[0]} exists, and nothing was written; name another folder")
        try:
            for path, target in targets.items():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        except OSError as error:
            raise InputError(f"init: cannot write in {folder}: {error.strerror}; name another folder") from error
    return list(targets.values())
