"""Writes a corpus and an encoder to try everything on, without data of anybody and without a model hub."""

from pathlib import Path

from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.data.demo_encoder import write_encoder
from lightning_hpo.exceptions import InputError

__all__ = ["write_demo"]

# With fewer, some part of a split has too little of some criterion to be worth a score.
_FEWEST_POSTS = 20


def write_demo(folder: str | Path, *, posts: int, seed: int) -> None:
    """Write posts.csv, annotations.csv, criteria.yaml and the folder encoder.

    The same arguments give the same files on the same machine. The encoder takes most of the time, about 20 seconds of
    one core.

    Args:
        folder: Where to write; made if need be.
        posts: How many posts.
        seed: Decides everything.

    Raises:
        InputError: Too few posts, a negative seed, or a folder that cannot be written.
    """
    problems = [f"--posts: {posts} is too few; use {_FEWEST_POSTS} or more"] if posts < _FEWEST_POSTS else []
    path = Path(folder)
    if (path / "posts.csv").exists():
        problems.append(f"{str(path)!r} holds a posts.csv already, which is not overwritten; name another folder")
    problems += [f"--seed: {seed} is below 0; use 0 or more"] if seed < 0 else []
    if problems:
        raise InputError(problems)
    try:
        path.mkdir(parents=True, exist_ok=True)
        DemoCorpus(posts, seed).write(path)
        write_encoder(path / "encoder", seed)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{str(path)!r} cannot be written ({reason}); give a folder that can") from error
