from pathlib import Path

from lightning_hpo.data.corpus import read_corpus
from lightning_hpo.data.criteria import DSM5_CRITERIA
from lightning_hpo.data.demo_corpus import NOT_EVIDENCE, SYMPTOMS, DemoCorpus


def test_demo_corpus_is_readable(tmp_path: Path) -> None:
    DemoCorpus(300, 7).write(tmp_path)
    corpus = read_corpus(tmp_path / "posts.csv", tmp_path / "annotations.csv", tmp_path / "criteria.yaml")
    assert len(corpus.posts) == 300
    assert corpus.criteria == DSM5_CRITERIA
    assert {pair.criterion for pair in corpus.pairs if pair.met} == set(DSM5_CRITERIA)
    assert all(pair.spans for pair in corpus.pairs if pair.met)
    assert 250 < sum(pair.met for pair in corpus.pairs) < 500
    assert sum(not pair.met for pair in corpus.pairs) > 60
    assert len(set(corpus.posts.values())) < 300
    words = sorted(len(text.split()) for text in corpus.posts.values())
    assert 20 <= words[150] <= 120
    assert words[-1] > 200
    assert set(corpus.counts) == {"rows left out (SPECIAL_CASE)", "posts without annotation"}


def test_texts_depend_on_the_seed(tmp_path: Path) -> None:
    del tmp_path
    assert DemoCorpus(30, 1).texts() == DemoCorpus(30, 1).texts()
    assert DemoCorpus(30, 1).texts() != DemoCorpus(30, 2).texts()


def test_every_criterion_has_sentences() -> None:
    assert list(SYMPTOMS) == list(NOT_EVIDENCE) == list(DSM5_CRITERIA)
