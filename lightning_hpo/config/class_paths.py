"""Objects that a config names by class path and arguments."""

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from lightning_hpo.exceptions import InputError

__all__ = ["instantiate"]


def instantiate(base: type, config: Namespace, flag: str) -> Any:
    """Create an object from its class path and arguments. Errors name the flag that the user set.

    Raises:
        InputError: If the class raises a TypeError or ValueError for its arguments.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "object")
    try:
        return parser.instantiate(Namespace(object=config)).object  # type: ignore[no-untyped-call]
    except (TypeError, ValueError) as error:
        name = config.class_path.rsplit(".", 1)[-1]
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise InputError(f"{flag}: {name} does not accept its arguments: {str(cause).splitlines()[0]}") from error
