from pathlib import Path

import torch
from transformers import AutoModel

from lightning_hpo.data.demo_encoder import write_encoder
from lightning_hpo.data.tokenizers import load_tokenizer


def test_it_loads_and_the_seed_decides(tmp_path: Path) -> None:
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
