#!/usr/bin/env python
"""The plan's command line: a thin front of `lightning-hpo tune`.

python scripts/tune_max.py --agent evidence --study NAME --n-trials 10 --parallel 1 --outdir outputs
"""

import argparse
import sys
from pathlib import Path

from lightning_hpo.cli import main

_CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_DATA = Path("data/redsm5")
_DEMO_DATA = Path("demo/data")


def _configs(agent: str) -> list[str]:
    """The agent's config and search space; those of the demo as long as there is no corpus."""
    if _DATA.is_dir():
        return [str(_CONFIGS / f"{agent}.yaml"), str(_CONFIGS / f"{agent}_search_space.yaml")]
    print(
        f"{_DATA} is not here, so this tunes on the made-up demo corpus in {_DEMO_DATA}. "
        f"For the real study put ReDSM5's posts.csv and annotations.csv into {_DATA}.",
        file=sys.stderr,
    )
    if not _DEMO_DATA.is_dir() and main(["demo-data", str(_DEMO_DATA)]) != 0:
        raise SystemExit(2)
    return [str(_CONFIGS / f"demo_{agent}.yaml")]


def _arguments() -> list[str]:
    parser = argparse.ArgumentParser(description="Tune an agent; further flags are those of `lightning-hpo tune`.")
    parser.add_argument("--agent", choices=["criteria", "evidence"], required=True)
    parser.add_argument("--study", required=True, help="name of the study; the same name goes on with it")
    parser.add_argument("--n-trials", default="20", help="trials in all, default: %(default)s")
    parser.add_argument("--parallel", default="1", help="trials at the same time, default: %(default)s")
    parser.add_argument("--outdir", default="outputs", help="folder of checkpoints and logs, default: %(default)s")
    given, further = parser.parse_known_args()
    configs = [] if "--config" in further else [word for path in _configs(given.agent) for word in ("--config", path)]
    study = ["--study.name", given.study, "--study.n_trials", given.n_trials]
    study += ["--study.workers", given.parallel, "--study.outdir", given.outdir]
    return ["tune", *configs, *study, *further]


if __name__ == "__main__":
    sys.exit(main(_arguments()))
