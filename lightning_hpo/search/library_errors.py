"""Exceptions of a sampler or pruner, in one line that names the flag."""

__all__ = ["library_problem"]


def library_problem(flag: str, class_path: str, error: BaseException) -> str:
    """Return one line about an exception of a library's class that a flag names."""
    name = class_path.rpartition(".")[-1]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ImportError) and cause.name:
            package = cause.name.partition(".")[0]
            return f"{flag}: {name} needs the package {package}: pip install {package}; or use another one"
        cause = cause.__cause__ or cause.__context__
    reason = next(iter(str(error).splitlines()), "")
    return f"{flag}: {name} cannot be used in this study: {type(error).__name__}: {reason}"
