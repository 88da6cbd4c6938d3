"""Removal of what is kept of the posts of a data folder."""

from contextlib import suppress
from pathlib import Path

from lightning_hpo.data.cache import CACHE, cached_files
from lightning_hpo.exceptions import InputError, LightningHpoError

__all__ = ["forget"]


def forget(folder: Path) -> str:
    """Remove the caches of a data folder, and no other file. Return what was removed, in a line.

    Args:
        folder: Folder of a file with posts.

    Raises:
        InputError: If it is not such a folder; nothing has been removed then.
        LightningHpoError: If a file cannot be removed.
    """
    _check(folder)
    cache, found = folder.joinpath(*CACHE), list(cached_files(folder))
    size = sum(path.stat().st_size for path in found)
    for path in found:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise LightningHpoError(
                f"forget: {path} cannot be removed: {error.strerror}; run it as {_owner(path)}"
            ) from error
    parents = {parent for path in found for parent in path.parents if parent.is_relative_to(cache.parent)}
    for parent in sorted({*parents, cache, cache.parent}, reverse=True):  # a folder comes before the one that it is in
        with suppress(OSError):  # it holds files of others
            parent.rmdir()
    caches = len({path.relative_to(cache).parts[0] for path in found if path.is_relative_to(cache)})
    return (
        f"removed {len(found)} files ({size} bytes) with copies of posts and tokens, of {caches} post files in {folder}"
    )


def _check(folder: Path) -> None:
    """Raise an `InputError` if a folder is not one with posts, or its cache is elsewhere."""
    if not folder.is_dir():
        what = "a file" if folder.exists() else "no such folder"
        raise InputError(f"forget: {folder}: {what}; name the folder of posts.csv")
    cache = folder.joinpath(*CACHE)
    for path in (cache.parent, cache):
        if path.is_symlink():
            raise InputError(f"forget: {path} is a link to {path.readlink()}; remove the link, and what it points to")
    if not any(cached_files(folder)) and not any(folder.glob("*.csv")):
        raise InputError(f"forget: {folder}: it has no posts and no cache of posts; name the folder of posts.csv")


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):
        return "its owner"
