"""Template of a pair of texts: where a tokenizer puts its special tokens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from lightning_hpo.exceptions import InputError

if TYPE_CHECKING:  # a registered model reads its template from a file and does not need transformers
    from transformers import PreTrainedTokenizerFast

__all__ = ["PairTemplate", "largest_ids"]


@dataclass(frozen=True)
class PairTemplate:
    """Special tokens of a pair, as plain values that can be saved as JSON.

    Attributes:
        pieces: Special tokens before the first text, between the texts, and after the second text.
        piece_types: Token type ids of the pieces.
        section_types: Token type ids of the first and of the second text.
        has_types: Whether the encoder takes token type ids.
        pad_id: Token id of padding.
        longest: Maximum number of tokens that the encoder reads.
    """

    pieces: tuple[tuple[int, ...], ...]
    piece_types: tuple[tuple[int, ...], ...]
    section_types: tuple[int, int]
    has_types: bool
    pad_id: int
    longest: int

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerFast") -> Self:
        """Derive the template from a pair that the tokenizer has encoded.

        Raises:
            InputError: The tokenizer does not encode pairs of texts.
        """
        # Explicit, since a tokenizer.json may enable padding and truncation.
        probe = tokenizer("probe", "probe", padding=False, truncation=False)
        sections = probe.sequence_ids(0)
        first, second = (np.array([section == which for section in sections]) for which in (0, 1))
        if not first.any() or not second.any() or np.flatnonzero(first)[-1] > np.flatnonzero(second)[0]:
            raise InputError("--model.name: its tokenizer does not encode pairs of texts; choose another encoder")
        # Padding is masked, so any token works if there is no pad token.
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        has_types = "token_type_ids" in probe
        ids = list(probe["input_ids"])
        types = list(probe["token_type_ids"]) if has_types else [0] * len(ids)
        bounds = [0, *map(int, np.flatnonzero(first)[[0, -1]]), *map(int, np.flatnonzero(second)[[0, -1]]), len(ids)]
        cuts = [slice(0, bounds[1]), slice(bounds[2] + 1, bounds[3]), slice(bounds[4] + 1, bounds[5])]
        return cls(
            pieces=tuple(tuple(ids[cut]) for cut in cuts),
            piece_types=tuple(tuple(types[cut]) for cut in cuts),
            section_types=(types[bounds[1]], types[bounds[3]]),
            has_types=has_types,
            pad_id=int(pad) if isinstance(pad, int) else 0,
            longest=int(tokenizer.model_max_length),
        )

    @property
    def largest_ids(self) -> tuple[int, int]:
        """Largest token id and token type id of the special tokens and of the two texts."""
        tokens = [self.pad_id, *(token for piece in self.pieces for token in piece)]
        return max(tokens), max(*self.section_types, *(kind for types in self.piece_types for kind in types), 0)


def largest_ids(tokenizer: "PreTrainedTokenizerFast") -> tuple[int, int]:
    """Return the largest token id and token type id that a window may hold.

    Other special tokens, such as that of a mask, stand in no window.
    """
    token, kind = PairTemplate.of(tokenizer).largest_ids
    words = tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
    added = [place for place, word in tokenizer.added_tokens_decoder.items() if not word.special]
    return max(token, words - 1, *added), kind
