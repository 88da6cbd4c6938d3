import torch
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.pair import Pair
from lightning_hpo.data.scored_pair import ScoredPair
from lightning_hpo.data.scored_pairs import ScoredPairs
from lightning_hpo.data.tokenized_posts import TokenizedPosts
from lightning_hpo.data.windows import Windows

TEXTS = {"long": " ".join(["w1"] * 30), "short": "w2 w3"}


def test_windows_of_a_pair_stay_together(tokenizer: PreTrainedTokenizerFast) -> None:
    windows = Windows.of(tokenizer, max_length=16, stride=4)
    posts = TokenizedPosts(TEXTS, tokenizer)
    criteria = {"SAD": windows.tokenize(["sad"])[0]}
    pairs = [
        ScoredPair(Pair(post, "SAD", False), tuple(windows.ranges(len(posts[post]), criteria["SAD"])))
        for post in ("short", "long", "short")
    ]
    dataset = ScoredPairs(pairs, posts=posts, criteria=criteria, windows=windows, batch_size=3, offsets=True)
    first, second = (dataset[index] for index in range(len(dataset)))
    assert first["post_ids"] == ["long"]
    assert first["pair_index"].tolist() == [0, 0, 0, 0]
    assert second["post_ids"] == ["short", "short"]
    assert second["input_ids"].shape == (2, 8)
    assert torch.equal(second["offsets"][0, 3:5], torch.tensor([[0, 2], [3, 5]]))
