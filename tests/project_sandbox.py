"""A folder in which a user's commands run as they stand."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from lightning_hpo.data.demo_corpus import DemoCorpus
from lightning_hpo.data.posts import read_posts
from tests.hub import encoder_in, write_hub

ROOT = Path(__file__).parent.parent
DATABASES = ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI")


class ProjectSandbox:
    """A folder as the plan's user has it: scripts, configs, the corpus in data/redsm5, the encoders in reach."""

    def __init__(self, folder: Path, layers: int = 1, posts: int = 60) -> None:
        self.folder = folder
        for name in ("scripts", "configs"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "data/redsm5").mkdir(parents=True)
        DemoCorpus(posts, 17).write(folder / "data/redsm5")
        texts = list(read_posts(folder / "data/redsm5/posts.csv").values())
        write_hub(folder / "hub", texts, layers)
        # MLflow puts what an earlier test has set into this process's environment.
        outside = {name: value for name, value in os.environ.items() if name not in DATABASES}
        self.environment = outside | {"HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}

    def encoder(self, name: str) -> str:
        """The folder of an encoder."""
        return encoder_in(self.folder / "hub", name)

    def run(self, command: str, exported: Mapping[str, str] | None = None) -> str:
        words = shlex.split(command)
        words = {"python": [sys.executable], "lightning-hpo": [sys.executable, "-m", "lightning_hpo"]}[
            words[0]
        ] + words[1:]
        environment = self.environment | dict(exported or {})
        done = subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr
