import random
from pathlib import Path

from lightning_hpo.data.demo_encoder import write_encoder
from lightning_hpo.data.demo_pretraining import _example, _tensors
from lightning_hpo.data.tokenizers import load_tokenizer


def test_tags_mark_the_related_sentence_from_its_first_to_its_last_token(tmp_path: Path) -> None:
    write_encoder(tmp_path, 0, steps=1)
    draw = random.Random(0)
    examples = [_example(draw) for _ in range(40)]
    tokenizer = load_tokenizer(str(tmp_path))
    inputs, related, tags = _tensors(examples, tokenizer)
    assert tags.shape == inputs["input_ids"].shape
    assert 10 < related.sum() < 30
    for example, row, ids in zip(examples, tags.tolist(), inputs["input_ids"].tolist(), strict=True):
        marked = [place for place, tag in enumerate(row) if tag > 0]
        assert bool(marked) == (example.related is not None)
        if example.related:
            assert [row[marked[0]], row[marked[-1]]] == [1, 3]
            sentence = example.passage[slice(*example.related)]
            assert ids[marked[0] : marked[-1] + 1] == tokenizer(sentence, add_special_tokens=False)["input_ids"]
