"""Documents, dependency lists and configs agree with the project."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
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


def test_the_locks_contain_the_hashes_of_every_requirement_and_no_malware() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    run, dev = (_locked(ROOT / name) for name in ("requirements.lock", "requirements-dev.lock"))
    assert all(hashes and all(len(each) == 64 for each in hashes) for _, hashes in [*run.values(), *dev.values()])
    assert not run.keys() & dev.keys()
    # The build backend too: the project is installed without build isolation.
    wanted = [*project["dependencies"], *project["optional-dependencies"]["report"], "setuptools"]
    assert {_name(line) for line in wanted} <= run.keys()
    # bitsandbytes needs an NVIDIA GPU.
    assert {_name(line) for line in _requirements() - {"bitsandbytes"}} <= run.keys() | dev.keys()
    assert run["lightning"][0] not in ("2.6.2", "2.6.3")


def _locked(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Return the version of each locked package and the hashes of its files."""
    entries = re.findall(
        r"^([a-z\d.-]+)==([^ ]+) .*\n((?: +--hash=sha256:\w+.*\n?)*)", path.read_text("utf-8"), re.MULTILINE
    )
    return {name: (version, re.findall(r"sha256:([\da-f]+)", hashes)) for name, version, hashes in entries}


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=\[]", requirement)[0]).lower()


def test_the_scripts_refuse_a_package_whose_hash_is_not_that_of_the_lock(tmp_path: Path) -> None:
    venv.create(tmp_path / ".venv", symlinks=True)
    packages = next((tmp_path / ".venv/lib").glob("python*/site-packages"))
    (packages / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    (tmp_path / "scripts").mkdir()
    shutil.copy2(ROOT / "scripts/environment.sh", tmp_path / "scripts")
    (tmp_path / "pyproject.toml").touch()
    with zipfile.ZipFile(tmp_path / "torch-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("torch-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
        wheel.writestr("torch-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("torch-1.0.dist-info/RECORD", "")
    (tmp_path / "requirements.lock").write_text(f"torch==1.0 \\\n    --hash=sha256:{64 * '0'}\n", encoding="utf-8")
    environment = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    script = ["bash", "-c", "source scripts/environment.sh"]
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / ".venv/installed").exists()


def test_the_demo_deletes_no_studies_without_a_question(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy2(ROOT / "scripts/demo", tmp_path / "scripts")
    (tmp_path / "scripts/environment.sh").touch()
    (tmp_path / "demo/outputs").mkdir(parents=True)
    command = [tmp_path / "scripts/demo"]
    done = subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1][:22]) == (2, "demo/: not deleted; de")
    assert (tmp_path / "demo/outputs").is_dir()


def test_each_agent_has_a_config_two_search_spaces_and_a_demo() -> None:
    wanted = {
        f"{name}.yaml"
        for agent in ("criteria", "evidence", "joint")
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
