"""The README's commands, run as they stand where ReDSM5 and the encoders are in reach; only studies are cut short."""

import re

import optuna
import pytest

from lightning_hpo.data.demo_corpus import DemoCorpus
from tests.workplace import ROOT, Workplace

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = " --study.n_trials 1 --trainer.max_epochs 1 --data.eval_batch_size 256 --study.pruner optuna.pruners.NopPruner"


def _commands() -> list[str]:
    """Every command of the bash blocks; a line that ends in a backslash goes on."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"(lightning-hpo|python) ", line) and not line.endswith(" ui")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("readme"))
    for name in ("demo/data", "my"):
        (place.folder / name).mkdir(parents=True)
        DemoCorpus(60, 17).write(place.folder / name)
    (place.folder / "demo/data/encoder").symlink_to(place.encoder("roberta-base"))
    (place.folder / "new_posts.csv").write_text("post_id,text\nn1,I lie awake every night.\n", encoding="utf-8")
    (place.folder / "_optuna").mkdir()
    old = optuna.create_study(study_name="old", storage=f"sqlite:///{place.folder}/_optuna/noaug.db")
    old.optimize(lambda trial: trial.suggest_float("lr", 0.0, 1.0), n_trials=2)
    return place


def test_the_readmes_commands_run(workplace: Workplace) -> None:
    commands = _commands()
    assert {command.split()[1] for command in commands} == {
        *(
            "tune",
            "status",
            "report",
            "refit",
            "register",
            "reconcile",
            "import-study",
            "fit",
            "validate",
            "test",
            "predict",
            "scripts/tune_max.py",
        ),
    }
    for command in commands:
        words = re.sub(r"--study.n_trials \d+|--study.workers \d+", "", command.replace("trial_7", "trial_0"))
        if "tune" in words:
            words = words.replace("--n-trials 20", "--n-trials 1") + SHORT
        if " refit " in words:
            words += " --trials 1 --seeds 1"
        if " fit " in words:
            words += " --trainer.max_epochs 1"
        words, _, answers = words.partition(" > ")
        said = workplace.run(words)
        if answers:
            assert '"post_id": "n1"' in said
            assert "awake" not in said


def test_the_readmes_python_runs(workplace: Workplace) -> None:
    serving, plain = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    for code in (serving, plain):
        (workplace.folder / "block.py").write_text(code, encoding="utf-8")
        workplace.run("python block.py")
