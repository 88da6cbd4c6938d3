"""Documents, dependency lists and configs agree with the project."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.search.space import SearchSpace
from lightning_hpo.storage.settings import StudySettings

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
STAGES = sorted(path.name for path in (ROOT / "configs/stages").glob("*.yaml"))


def _requirements() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    return {line for line in listed if not line.startswith("lightning-text-hpo[")}


def test_the_conda_environment_has_the_requirements_of_the_project() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    # bitsandbytes needs an NVIDIA GPU.
    assert set(pip) == _requirements() - {"bitsandbytes"}


def test_the_lock_contains_every_requirement_and_no_malware() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split("==") for line in lines if not line.startswith("#"))
    names = {_normal(name) for name in locked}
    assert {_normal(re.split(r"[<>=\[]", line)[0]) for line in _requirements()} <= names
    assert locked["lightning"] not in ("2.6.2", "2.6.3")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_each_agent_has_a_config_two_search_spaces_and_a_demo() -> None:
    wanted = {
        f"{name}.yaml"
        for agent in ("criteria", "evidence")
        for name in (agent, f"{agent}_search_space", f"{agent}_full_search_space", f"demo_{agent}")
    }
    assert set(CONFIGS) == wanted


@pytest.mark.parametrize("agent", ["criteria", "evidence"])
@pytest.mark.parametrize("kind", ["", "demo_"])
def test_every_config_and_search_space_is_valid(agent: str, kind: str) -> None:
    paths = [f"{kind}{agent}.yaml"] + ([] if kind else [f"{agent}_search_space.yaml"])
    arguments = [word for path in paths for word in ("--config", str(ROOT / "configs" / path))]
    cli = AgentCLI(arguments, instantiate=False, study=StudySettings)
    space = SearchSpace(cli.config.search_space, cli.values)
    assert set(space.dimensions) == set(cli.config.search_space)


def test_each_stage_starts_from_the_previous_one_and_fixes_flags_searched_before() -> None:
    assert [f"criteria_{stage}.yaml" for stage in ("1_baseline", "2_augmentation", "3_joint")] == STAGES
    searched: set[str] = set()
    before = None
    for name in STAGES:
        paths = ("--config", str(ROOT / "configs/criteria.yaml"), "--config", str(ROOT / "configs/stages" / name))
        cli = AgentCLI(paths, instantiate=False, study=StudySettings)
        study, space = cli.config.study, SearchSpace(cli.config.search_space, cli.values)
        assert study["from"] == before
        assert set(study.fix) <= searched
        searched |= set(space.dimensions)
        before = study.name


def test_no_tracked_file_contains_a_local_path_or_a_package_index() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    forbidden = re.compile("|".join(("/" + "work/", "/" + "root/", "files." + "pythonhosted", "pypi" + r"\.org")))
    found = [
        name
        for name in listed
        if (ROOT / name).is_file() and forbidden.search((ROOT / name).read_text(encoding="utf-8", errors="ignore"))
    ]
    assert found == []
