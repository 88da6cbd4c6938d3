import json
from dataclasses import asdict

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.pair_template import PairTemplate
from lightning_hpo.data.windows import Windows
from lightning_hpo.exceptions import InputError


def test_template_from_json_makes_the_same_windows(tokenizer: PreTrainedTokenizerFast) -> None:
    template = PairTemplate.of(tokenizer)
    assert template.longest == 128
    again = PairTemplate(**json.loads(json.dumps(asdict(template))))
    made = [Windows(tokenizer.backend_tokenizer, each, max_length=16, stride=4) for each in (template, again)]
    criterion, post = made[0].tokenize(["w1 w2", "w3 w4"])
    first, second = (windows.collate([windows.compose(criterion, post)]) for windows in made)
    assert {name: values.tolist() for name, values in first.items()} == {
        name: values.tolist() for name, values in second.items()
    }


def test_tokenizer_with_the_second_text_first_is_an_error() -> None:
    backend = Tokenizer(models.WordLevel({"probe": 0, "[UNK]": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="$A", pair="$B $A", special_tokens=[])
    with pytest.raises(InputError, match=r"--model\.name: its tokenizer does not encode pairs of texts"):
        PairTemplate.of(PreTrainedTokenizerFast(tokenizer_object=backend))  # type: ignore[no-untyped-call]
