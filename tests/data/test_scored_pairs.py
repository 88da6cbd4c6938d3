import torch
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.corpus import Corpus
from lightning_hpo.data.pair import Pair
from lightning_hpo.data.posts import Posts
from lightning_hpo.data.scored_pairs import ScoredPairs
from lightning_hpo.data.tokenized_posts import TokenizedPosts
from lightning_hpo.data.window_labels import criteria_labels
from lightning_hpo.data.windows import Windows

TEXTS = {"one": "w2 w3", "long": " ".join(["w1"] * 30), "other": "w2 w3"}


def _dataset(tokenizer: PreTrainedTokenizerFast, *pairs: Pair, **how: object) -> ScoredPairs:
    windows = Windows.of(tokenizer, max_length=16, stride=4)
    corpus = Corpus(Posts.of(TEXTS), {"SAD": "sad"}, pairs)
    return ScoredPairs(
        corpus.pairs_of(tuple(TEXTS)),
        posts=TokenizedPosts(corpus.posts.texts, tokenizer),
        criteria={"SAD": windows.tokenize(["sad"])[0]},
        windows=windows,
        batch_size=3,
        **how,  # type: ignore[arg-type]
    )


def test_windows_of_a_pair_stay_together(tokenizer: PreTrainedTokenizerFast) -> None:
    dataset = _dataset(tokenizer, offsets=True)
    first, second = (dataset[index] for index in range(len(dataset)))
    assert first["post_ids"] == ["long"]
    assert first["pair_index"].tolist() == [0, 0, 0, 0]
    assert second["post_ids"] == ["one", "other"]
    assert second["input_ids"].shape == (2, 8)
    assert torch.equal(second["offsets"][0, 3:5], torch.tensor([[0, 2], [3, 5]]))
    assert "labels" not in first


def test_each_window_has_the_target_of_its_own(tokenizer: PreTrainedTokenizerFast) -> None:
    dataset = _dataset(
        tokenizer, Pair("long", "SAD", True, ((0, 2),)), Pair("other", "SAD", True), labels=criteria_labels
    )
    assert [dataset[index]["labels"].tolist() for index in range(2)] == [[1, 0, 0, 0], [0, 1]]
