"""The README and the pages in docs/: what they say is done as it stands; only studies are cut short."""

import re
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from lightning_hpo.cli import main
from lightning_hpo.data.demo_corpus import DemoCorpus
from tests.document import Reader, blocks
from tests.project_sandbox import ROOT, ProjectSandbox

README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
# The answers of an encoder that has learned nothing are so near to 0.5 that bf16 turns some of them over.
SHORT = " --study.n_trials 1 --study.pruner optuna.pruners.NopPruner --trainer.max_epochs 1 --trainer.precision 32-true"


def _shortened(command: str) -> str:
    """Less of the same command; nothing where another test does it, or where it has another shell wait."""
    if re.match(r"scripts/|export PATH|pip |pdoc |lightning-hpo (demo-data|ui)", command):
        return ""
    words = re.sub(r"--study.(n_trials|workers|per_device) \d+|--study.devices \S+ \S+", "", command)
    words = words.replace("trial_7", "trial_0").replace("--n-trials 20", "--n-trials 1").rstrip()
    if "tune" in words:
        words += SHORT + (" --data.eval_batch_size 256" if "configs/" in words or "tune_max" in words else "")
    if " refit " in words:
        words += " --trials 1 --seeds 1"
    return words + (" --trainer.max_epochs 1" if " fit " in words else "")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """One who has read the README; the demo's data are there, and so are ReDSM5's, and the encoders of the configs."""
    place = ProjectSandbox(tmp_path_factory.mktemp("docs"))
    for name in ("demo/data", "my"):
        (place.folder / name).mkdir(parents=True)
        DemoCorpus(60, 17).write(place.folder / name)
    (place.folder / "demo/data/encoder").symlink_to(place.encoder("roberta-base"))
    (place.folder / "new_posts.csv").write_text("post_id,text\nn1,I lie awake every night.\n", encoding="utf-8")
    (place.folder / "_optuna").mkdir()
    old = optuna.create_study(study_name="old", storage=f"sqlite:///{place.folder}/_optuna/noaug.db")
    old.optimize(lambda trial: trial.suggest_float("lr", 0.0, 1.0), n_trials=2)
    made = Reader(place, _shortened)
    try:
        made.follow(README)
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_is_done(page: Path, reader: Reader) -> None:
    reader.follow(page)
    for command, said in reader.answers.items():
        if command.startswith("curl"):
            assert re.fullmatch(r'\{"predictions": \[\{"met": (true|false), "probability": [\d.e-]+\}\]\}\s*', said)
        if " predict " in command:
            assert '"post_id": "n1"' in said
            assert "awake" not in said


def test_every_command_is_on_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    there = re.findall(r"^  ([\w-]+)  ", capsys.readouterr().out, flags=re.MULTILINE)
    said = {line for page in (README, *PAGES) for block in blocks(page) for line in block.commands}
    assert [name for name in there if not any(line.startswith(f"lightning-hpo {name}") for line in said)] == []


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.stem)
def test_a_link_leads_to_a_page_and_its_heading(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8") if anchor else "", flags=re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.name != "README.md" and f"{page.name})" not in contents] == []
