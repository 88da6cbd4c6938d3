"""Write a demo: a made-up corpus and a small encoder, to try everything without real data or a model hub."""

from pathlib import Path

from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.data.demo_encoder import write_encoder
from lightning_hpo.exceptions import InputError, raise_problems

__all__ = ["write_demo"]

# With fewer posts, some split would have too few examples of some criteria for meaningful scores.
_FEWEST_POSTS = 20


def write_demo(folder: str | Path, *, posts: int, seed: int) -> None:
    """Write `posts.csv`, `annotations.csv`, `criteria.yaml` and the folder `encoder`; create the folder if necessary.

    The same arguments give the same files on the same machine. The encoder takes most of the time, about 20 seconds of
    one core.

    Raises:
        InputError: There are too few posts, the seed is negative, or the folder cannot be written.
    """
    problems = [f"--posts: got {posts}; use {_FEWEST_POSTS} or more"] if posts < _FEWEST_POSTS else []
    path = Path(folder)
    if (path / "posts.csv").exists():
        problems.append(f"{str(path)!r} already contains a posts.csv, which is not overwritten; name another folder")
    problems += [f"--seed: got {seed}; use 0 or more"] if seed < 0 else []
    raise_problems(problems)
    try:
        path.mkdir(parents=True, exist_ok=True)
        DemoCorpus(posts, seed).write(path)
        write_encoder(path / "encoder", seed)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{str(path)!r} cannot be written ({reason}); name a writable folder") from error
