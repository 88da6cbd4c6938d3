import random
from typing import Any

import pytest

from lightning_hpo.agents.baselines import BaselineData, baselines_of, linear_words, similar_sentence
from lightning_hpo.agents.post_scores import PostScores, text_keys
from tests.tiny import pair_table

CRITERIA = {"SLEEP": "Trouble to sleep at night", "FOOD": "No appetite, or eats too much"}
EVIDENCE = {"SLEEP": "I cannot sleep at night.", "FOOD": "My appetite is gone."}
OTHER = ["The weather was fine.", "We went to the lake.", "My dog barks a lot.", "The car broke down again."]


def _data(posts: int, *, labels: str = "real") -> BaselineData:
    """Return posts of some sentences, half of them for training. A quarter of the pairs is met."""
    draw = random.Random(17)
    texts: dict[str, str] = {}
    rows: list[Any] = []
    for number in range(posts):
        sentences = draw.sample(OTHER, 3)
        criterion = draw.choice(list(CRITERIA)) if number % 2 else None
        if criterion is not None:
            sentences.insert(1, EVIDENCE[criterion])
        text = texts[f"p{number}"] = " ".join(sentences)
        for name in CRITERIA:
            met = name == criterion if labels == "real" else labels == "always" or draw.random() < 0.25
            start = text.find(EVIDENCE[name])
            span = [(start, start + len(EVIDENCE[name]))] if met and start >= 0 else []
            rows.append((f"p{number}", name, met, *span))
    train, scored = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    return BaselineData(pair_table(train), pair_table(scored), texts, CRITERIA)


def test_simple_models_find_what_words_tell() -> None:
    data = _data(80)
    assert linear_words(data).score > 0.95
    assert similar_sentence(data).score > 0.95


def test_labels_that_words_do_not_tell_are_not_found() -> None:
    met = _data(400, labels="drawn")
    assert linear_words(met).score < 0.6


@pytest.mark.parametrize("baseline", [linear_words, similar_sentence])
def test_scored_labels_are_not_used_for_the_answers(baseline: object) -> None:
    """Turning the labels over turns the score over: the answers stay."""
    data = _data(40)
    rows = [(pair.post_id, pair.criterion, not pair.met) for pair in data.scored]
    turned = BaselineData(data.train, pair_table(rows), data.posts, data.criteria)
    assert callable(baseline)
    one, other = baseline(data), baseline(turned)
    if one.formula == "macro_f1":
        assert (one.sums[:, [0, 1, 2, 3]] == other.sums[:, [1, 0, 3, 2]]).all()
    else:
        assert other.score < one.score


@pytest.mark.parametrize("text", ["!", "the of and", "疲", ""])
def test_posts_without_words_have_a_score(text: str) -> None:
    rows = [(f"p{number}", name, number % 2 == 0) for number in range(6) for name in CRITERIA]
    table = pair_table(rows)
    data = BaselineData(table, table, {f"p{number}": text or " " for number in range(6)}, CRITERIA)
    assert 0 <= linear_words(data).score <= 1
    assert 0 <= similar_sentence(data).score <= 1


def test_criterion_with_one_label_only_has_that_answer() -> None:
    assert linear_words(_data(20, labels="always")).score == 1.0


def test_module_without_the_hook_has_no_baselines() -> None:
    class Own:
        def baselines(self, datamodule: object, split: str) -> dict[str, PostScores | float]:
            return {"guess": 0.5, split: PostScores.of_means(text_keys(["a"]), [1.0])}

    assert baselines_of(object(), None, "val") == {}
    assert list(baselines_of(Own(), None, "test")) == ["guess", "test"]
