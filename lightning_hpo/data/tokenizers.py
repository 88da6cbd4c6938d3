"""Loads fast tokenizers, and tokenizes texts once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lightning_hpo.data.hub import local_files_only
from lightning_hpo.data.tokenized_text import TokenizedText
from lightning_hpo.exceptions import InputError

__all__ = ["load_tokenizer", "tokenize"]

_WHAT_WORKS = "give the id of an encoder on the hub or a folder with its config.json and tokenizer.json"
# The tokenizer library takes a batch at a time; this bounds its memory.
_TEXTS_AT_ONCE = 256


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The fast tokenizer of an encoder.

    Args:
        name: Hub id or folder of the encoder.

    Raises:
        InputError: There is no such encoder, or it has no fast tokenizer.
    """
    is_path = name.startswith((".", "/", "~")) or name.count("/") != name.strip("/").count("/") or name.count("/") > 1
    if is_path and not Path(name).is_dir():
        raise InputError(f"--model.name: there is no folder {name!r}; {_WHAT_WORKS}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, use_fast=True, trust_remote_code=False, local_files_only=local_files_only(name)
        )
    except (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise InputError(f"--model.name: no tokenizer can be loaded from {name!r} ({reason}); {_WHAT_WORKS}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"--model.name: the tokenizer of {name!r} is not a fast one; {_WHAT_WORKS}")
    # Of a folder without a tokenizer's files, transformers makes one that knows its special tokens only.
    if len(tokenizer) <= len(tokenizer.all_special_tokens) + 1:
        raise InputError(f"--model.name: {name!r} holds no tokenizer; {_WHAT_WORKS}")
    if not tokenizer("probe", add_special_tokens=False)["input_ids"]:
        raise InputError(f"--model.name: the tokenizer of {name!r} knows no words; {_WHAT_WORKS}")
    return tokenizer


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[TokenizedText]:
    """The whole of each text as tokens, nothing cut and no special token added."""
    tokenized: list[TokenizedText] = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        batch = list(texts[start : start + _TEXTS_AT_ONCE])
        # Said in full: a tokenizer.json may hold truncation and padding of its own.
        encoded = tokenizer(
            batch,
            add_special_tokens=False,
            return_offsets_mapping=True,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        pieces = zip(batch, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        tokenized += [TokenizedText(np.array(ids, np.int32), _trimmed(text, offsets)) for text, ids, offsets in pieces]
    return tokenized


def _trimmed(text: str, offsets: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
    """Offsets without white space at their ends, which byte-level tokenizers count as part of a token."""
    trimmed = np.array(offsets, np.int32).reshape(-1, 2)
    for row, (start, end) in enumerate(offsets):
        piece = text[start:end]
        if piece != piece.strip() or not piece:
            begin = end - len(piece.lstrip())
            trimmed[row] = (begin, begin + len(piece.strip())) if piece.strip() else (-1, -1)
    return trimmed
