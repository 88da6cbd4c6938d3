#!/usr/bin/env python
"""Short command line for `lightning-hpo tune`.

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
    """Return the config and search space of an agent, or the demo config if there is no corpus."""
    if _DATA.is_dir():
        return [str(_CONFIGS / f"{agent}.yaml"), str(_CONFIGS / f"{agent}_search_space.yaml")]
    print(
        f"{_DATA}: not found, so the study uses the synthetic demo corpus in {_DEMO_DATA}. "
        f"For a real study, copy posts.csv and annotations.csv of ReDSM5 to {_DATA}.",
        file=sys.stderr,
    )
    if not _DEMO_DATA.is_dir() and main(["demo-data", str(_DEMO_DATA)]) != 0:
        raise SystemExit(2)
    return [str(_CONFIGS / f"demo_{agent}.yaml")]


def _arguments() -> list[str]:
    parser = argparse.ArgumentParser(description="Tune an agent. Other flags are passed to `lightning-hpo tune`.")
    parser.add_argument("--agent", choices=["criteria", "evidence", "joint"], required=True)
    parser.add_argument("--study", required=True, help="name of the study; the name of an existing study resumes it")
    parser.add_argument("--n-trials", default="20", help="total number of trials; default: %(default)s")
    parser.add_argument("--parallel", default="1", help="trials at the same time; default: %(default)s")
    parser.add_argument("--outdir", default="outputs", help="folder of checkpoints and logs; default: %(default)s")
    given, further = parser.parse_known_args()
    configs = [] if "--config" in further else [word for path in _configs(given.agent) for word in ("--config", path)]
    study = ["--study.name", given.study, "--study.n_trials", given.n_trials]
    study += ["--study.workers", given.parallel, "--study.outdir", given.outdir]
    return ["tune", *configs, *study, *further]


if __name__ == "__main__":
    sys.exit(main(_arguments()))
