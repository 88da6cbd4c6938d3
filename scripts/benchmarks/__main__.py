"""Every measurement, each as a table: what a trial costs beside what a user would take instead, and what is fixed."""

import argparse
import json
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lightning_hpo.data.demo_corpus import DemoCorpus
from scripts.benchmarks import comparison, fixed_costs

_PARTS = ("fixed", "comparison")
_DEMO_POSTS = 600


def main() -> None:
    """Measure the parts that are asked for."""
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS, help="some of the parts; default: all")
    parser.add_argument("--posts", type=Path, help="a corpus for the comparison; default: a made-up one")
    parser.add_argument("--annotations", type=Path, help="its annotations")
    parser.add_argument("--criteria", type=Path, help="its criteria; default: those of DSM-5")
    parser.add_argument("--repeats", type=int, default=2, help="turns of the comparison; default: %(default)s")
    parser.add_argument("--trials", type=int, default=2, help="trials of each contender a turn; default: %(default)s")
    parser.add_argument("--pairs", type=int, default=160, help="pairs to train on; default: %(default)s")
    parser.add_argument("--json", type=Path, help="where the comparison's figures go as well")
    given = parser.parse_args()
    console = Console()
    if "fixed" in given.only:
        console.print(fixed_costs.table())
    if "comparison" in given.only:
        console.print(f"on {comparison.device()}")
        figures = _compared(given)
        console.print(comparison.table(figures), _ratios(figures))
        if given.json:
            given.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


def _compared(given: argparse.Namespace) -> comparison.Figures:
    options = {"repeats": given.repeats, "trials": given.trials, "train_pairs": given.pairs}
    if given.posts is not None:
        return comparison.compare(given.posts, given.annotations, given.criteria, **options)
    with tempfile.TemporaryDirectory() as name:
        DemoCorpus(_DEMO_POSTS, 17).write(Path(name))
        files = [Path(name, file) for file in ("posts.csv", "annotations.csv", "criteria.yaml")]
        return comparison.compare(*files, **options)


def _ratios(figures: comparison.Figures) -> Table:
    shown = Table("ratio", "is", "should be", box=None)
    for name, value, wanted in comparison.ratios(figures):
        shown.add_row(name, f"{value:.2f}", wanted)
    return shown


if __name__ == "__main__":
    main()
