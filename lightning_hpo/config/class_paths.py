"""Objects from a class path and its arguments, as a config names them."""

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from lightning_hpo.exceptions import InputError

__all__ = ["instantiate"]


def instantiate(base: type, config: Namespace, flag: str) -> Any:
    """Make the object.

    Args:
        base: What its class derives from.
        config: Its class path and its arguments.
        flag: The flag that named it, for errors.

    Raises:
        InputError: If the class refuses its arguments.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "it")
    try:
        return parser.instantiate(Namespace(it=config)).it  # type: ignore[no-untyped-call]
    except (TypeError, ValueError) as error:
        name = config.class_path.rsplit(".", 1)[-1]
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise InputError(f"{flag}: {name} refused its arguments: {str(cause).splitlines()[0]}") from error
