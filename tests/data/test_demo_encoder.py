import random
from pathlib import Path

import torch
from transformers import AutoModel

from lightning_hpo.data.demo_encoder import _example, _tensors, write_encoder
from lightning_hpo.data.hub import load_tokenizer


def test_demo_encoder_loads_and_depends_on_the_seed(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    for name in ("one", "same"):
        write_encoder(tmp_path / name, 3, steps=2)
    assert torch.equal(state, torch.get_rng_state())
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "same" / name).read_bytes()
    tokenizer = load_tokenizer(str(tmp_path / "one"))
    encoder = AutoModel.from_pretrained(tmp_path / "one", use_safetensors=True, add_pooling_layer=False)
    inputs = tokenizer("I feel worthless.", "My uncle xyzzy left.", return_tensors="pt")
    assert encoder(**inputs).last_hidden_state.shape == (1, inputs["input_ids"].shape[1], 128)
    assert tokenizer.unk_token_id not in inputs["input_ids"]


def test_tags_mark_the_related_sentence(tmp_path: Path) -> None:
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
