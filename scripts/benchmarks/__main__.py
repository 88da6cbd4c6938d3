"""Measure this project and print one table per part. Without --only, run the parts that take minutes.

between     time from the end of a trial to the first batch of the next
starting    --help, status, and fit up to the first batch
report      report of a study with 1,000 trials
serving     predictions per second of a registered model and of transformers' pipeline
busy        demo-data and a demo trial, alone and while other programs use every CPU
Only by name:
tracker     epochs and answers to reports while the tracking server is slow (minutes)
growth      costs that could grow with a study, at 10 and 10,000 trials (minutes)
comparison  a trial, the alternatives, and a bare training loop (half an hour)
corpus      start time, rates and memory at 10,000 and a million posts (minutes)
gpu         trials per hour on a GPU: one, two and four at a time, with and without torch.compile
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from scripts.benchmarks.figures import Figures, Ratio

# Needed by transformers' Trainer and by the report.
_NEEDED = ("accelerate", "plotly")
_DEMO_POSTS = 600
_REPORTED = 1000
_PREDICTED = 60


def main() -> None:
    """Measure the requested parts."""
    parser = _parser()
    given = parser.parse_args()
    if (given.posts is None) != (given.annotations is None):
        parser.error("--posts, --annotations: got only one; use both or neither")
    missing = [package for package in _NEEDED if find_spec(package) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)}: not installed; pip install 'lightning-text-hpo[benchmark]'")
    from lightning_hpo.data.demo_corpus import DemoCorpus
    from scripts.benchmarks.machine import machine

    console = Console()
    found: dict[str, object] = {"machine": machine()}
    console.print("\n".join(f"{what}: {value}" for what, value in machine().items()))
    with tempfile.TemporaryDirectory() as name:
        if given.posts is None:
            DemoCorpus(_DEMO_POSTS, 17).write(Path(name))
            files = [Path(name, file) for file in ("posts.csv", "annotations.csv", "criteria.yaml")]
            given.posts, given.annotations, given.criteria = files
        for part in given.only:
            figures = _PARTS[part](given)
            console.print("", figures.tables(part))
            found[part] = figures.as_dict()
            if given.json:  # after each part, so that an interruption loses little
                given.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_SHORT, metavar="PART", help="parts to run")
    parser.add_argument("--json", type=Path, help="save the figures to this file")
    parser.add_argument("--posts", type=Path, help="comparison, gpu, serving: posts of a corpus; default: synthetic")
    parser.add_argument("--annotations", type=Path, help="annotations of the corpus")
    parser.add_argument("--criteria", type=Path, help="criteria of the corpus; default: DSM-5")
    parser.add_argument("--repeats", type=int, default=2, help="comparison: rounds; default: %(default)s")
    parser.add_argument(
        "--trials", type=int, default=2, help="comparison: trials per contender and round; default: %(default)s"
    )
    parser.add_argument("--pairs", type=int, default=160, help="comparison: training pairs; default: %(default)s")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs=2,
        default=[10_000, 1_000_000],
        help="corpus: small and large number of posts; default: %(default)s",
    )
    return parser


def _between(given: argparse.Namespace) -> Figures:
    from scripts.benchmarks import between

    del given
    return between.figures()


def _starting(given: argparse.Namespace) -> Figures:
    from scripts.benchmarks import starting

    del given
    return starting.figures()


def _report(given: argparse.Namespace) -> Figures:
    from scripts.benchmarks import report

    del given
    return Figures({f"report of {_REPORTED:,} trials": report.measure(_REPORTED)})


def _serving(given: argparse.Namespace) -> Figures:
    from lightning_hpo.data.posts import read_posts
    from scripts.benchmarks import serving

    found = serving.measure(list(read_posts(str(given.posts)).values()), _PREDICTED)
    rows = {who: {"predictions/s": rate} for who, rate in found["answers_per_s"].items()}
    return Figures(rows, [Ratio("registered model ÷ transformers' pipeline", found["ratio"], least=1.5)])


def _busy(given: argparse.Namespace) -> Figures:
    from scripts.benchmarks import busy

    del given
    return busy.figures()


def _tracker(given: argparse.Namespace) -> Figures:
    from scripts.benchmarks import tracker

    del given
    return tracker.figures()


def _growth(given: argparse.Namespace) -> Figures:
    from scripts.benchmarks import growth

    del given
    return growth.figures()


def _comparison(given: argparse.Namespace) -> Figures:
    from scripts.benchmarks import comparison

    options = {"repeats": given.repeats, "trials": given.trials, "train_pairs": given.pairs}
    return comparison.figures(given.posts, given.annotations, given.criteria, **options)


def _corpus(given: argparse.Namespace) -> Figures:
    from scripts.benchmarks import corpus

    few, many = (corpus.figures(posts) for posts in given.sizes)
    columns = [f"{posts:,} posts" for posts in given.sizes]
    rows = {what: {columns[0]: few[what], columns[1]: many[what], "ratio": many[what] / few[what]} for what in few}
    rates = [Ratio(f"{what}: many posts ÷ few", rows[what]["ratio"], least=0.8) for what in rows if "s/s" in what]
    peaks = [Ratio(f"{what}, many posts", many[what], most=3) for what in rows if "peak GB" in what]
    return Figures(rows, rates + peaks)


def _gpu(given: argparse.Namespace) -> Figures:
    from scripts.benchmarks import gpu

    return gpu.figures(given.posts, given.annotations, given.criteria)


_PARTS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "between": _between,
    "starting": _starting,
    "report": _report,
    "serving": _serving,
    "busy": _busy,
    "tracker": _tracker,
    "growth": _growth,
    "comparison": _comparison,
    "corpus": _corpus,
    "gpu": _gpu,
}
_SHORT = ("between", "starting", "report", "serving", "busy")


if __name__ == "__main__":
    main()
