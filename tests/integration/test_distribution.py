"""Wheel and sdist: what `pip install` gives to somebody without this repository."""

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_BUILD = "import sys, setuptools.build_meta as b; _, to = sys.argv; b.build_sdist(to); b.build_wheel(to)"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the wheel and the sdist, built from a copy of the tracked files."""
    folder = tmp_path_factory.mktemp("distribution")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        if (ROOT / name).exists():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / "source" / name, follow_symlinks=False)
    command = [sys.executable, "-c", _BUILD, str(folder)]
    subprocess.run(command, cwd=folder / "source", check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def program(built: Path) -> Path:
    """`lightning-hpo` of the wheel, in an environment that takes all other packages from this one."""
    environment = built / "environment"
    venv.create(environment, symlinks=True)
    # Lines of paths only: this environment's own .pth files, with the editable install, are not read.
    packages = next((environment / "lib").glob("python*/site-packages"))
    (packages / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    [wheel] = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin/python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)], check=True)
    return environment / "bin/lightning-hpo"


def _run(program: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *words], cwd=folder, capture_output=True, text=True, check=False)


def test_wheel_and_sdist_have_the_configs_once_and_no_tests(built: Path) -> None:
    wanted = sorted(
        f"config/starter/{path.relative_to(ROOT / 'configs')}" for path in (ROOT / "configs").rglob("*.yaml")
    )
    [wheel], [sdist] = built.glob("lightning_text_hpo-*.whl"), built.glob("lightning_text_hpo-*.tar.gz")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    assert sorted(name for name in names if name.endswith(".yaml")) == [f"lightning_hpo/{name}" for name in wanted]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lightning_hpo", "lightning_text_hpo"}
    with tarfile.open(sdist) as archive:
        files = [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]
    assert sorted(name for name in files if name.endswith(".yaml")) == [f"lightning_hpo/{name}" for name in wanted]


def test_installed_program_runs_without_the_repository(program: Path, tmp_path: Path) -> None:
    assert "tune" in _run(program, tmp_path, "--help").stdout
    assert _run(program, tmp_path, "init", ".").returncode == 0
    assert (tmp_path / "configs/stages/criteria_1_baseline.yaml").is_file()
    (tmp_path / "encoder").mkdir()
    configs = ("--config", "configs/criteria.yaml", "--config", "configs/criteria_search_space.yaml")
    done = _run(program, tmp_path, "tune", *configs, "--study.name", "first", "--model.name", "encoder")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: configs/criteria_search_space.yaml: " in done.stderr  # no hub, and nothing in the cache
