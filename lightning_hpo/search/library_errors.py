"""Exceptions of a sampler or pruner, in one line that names the flag."""

__all__ = ["library_problem"]

_ON_THE_INDEX = ("botorch", "cmaes", "scipy", "torch")
"""Modules that Optuna's own samplers and pruners import, and that have the name of their distribution."""


def library_problem(flag: str, class_path: str, error: BaseException) -> str:
    """Return one line about an exception of a library's class that a flag names."""
    name = class_path.rpartition(".")[-1]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ImportError) and cause.name:
            package = cause.name.partition(".")[0]
            # Elsewhere, the distribution of the module's name may be somebody else's.
            install = f"pip install {package}" if package in _ON_THE_INDEX else "install it"
            return f"{flag}: {name} needs the package {package}: {install}; or use another one"
        cause = cause.__cause__ or cause.__context__
    reason = next(iter(str(error).splitlines()), "")
    return f"{flag}: {name} cannot be used in this study: {type(error).__name__}: {reason}"
