"""The comparison's contenders are given the same pairs, and the right figures are divided."""

import json
from pathlib import Path

import pytest

from lightning_hpo.data.demo_corpus import DemoCorpus
from scripts.benchmarks.comparison import ratios
from scripts.benchmarks.setting import Result, Setting, prepare, read_setting
from scripts.benchmarks.this_project import count_batches


def test_this_project_trains_on_the_pairs_of_the_others(tmp_path: Path) -> None:
    DemoCorpus(60, 17).write(tmp_path)
    files = (tmp_path / "posts.csv", tmp_path / "annotations.csv", tmp_path / "criteria.yaml")
    folder = tmp_path / "comparison"
    folder.mkdir()
    setting = prepare(Setting(folder=folder, train_pairs=20, epochs=2, max_length=256), *files)
    assert read_setting(str(folder)) == setting
    assert (len(setting.pairs("train")), len(setting.pairs("val"))) == (20, 40)
    assert {met for _, _, met in setting.pairs("val")} == {0, 1}
    result = Result()
    count_batches(setting, result)
    assert result.samples == 40
    assert 0 < result.padding < result.tokens
    result.write(setting)
    assert json.loads((folder / "result.json").read_text())["samples"] == 40


def test_too_few_posts_are_refused(tmp_path: Path) -> None:
    DemoCorpus(20, 17).write(tmp_path)
    files = (tmp_path / "posts.csv", tmp_path / "annotations.csv", tmp_path / "criteria.yaml")
    with pytest.raises(SystemExit, match="too few annotated posts fit into a window to give 500 pairs"):
        prepare(Setting(folder=tmp_path, train_pairs=500), *files)


def test_ratios_say_how_often_this_project_is_as_fast() -> None:
    seconds = {"this project, fp32": 22.0, "this project, bf16": 10.0, "bare loop, fp32": 20.0}
    seconds |= {"transformers, defaults": 50.0}
    figures = {name: {"seconds a trial": s, "padding": 0.02, "between s": 0.25} for name, s in seconds.items()}
    found = {name: value for name, value, _ in ratios(figures)}
    assert found["a trial to the bare loop, fp32"] == pytest.approx(1.1)
    assert found["transformers' defaults to a trial, bf16"] == pytest.approx(5.0)
    assert "a trial to the bare loop, bf16" not in found
    assert found["share of padding"] == 0.02
