"""Combine criterion and post into windows of bounded length that together cover the whole post."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from lightning_hpo.data.pair_template import PairTemplate
from lightning_hpo.data.tokenization import TokenizedText, tokenize
from lightning_hpo.exceptions import InputError

if TYPE_CHECKING:  # a registered model makes windows without transformers
    from transformers import PreTrainedTokenizerFast

__all__ = ["Window", "Windows"]

# Tensor cores like lengths that are multiples of this, and fewer different lengths are fewer shapes to plan for.
_LENGTH_STEP = 8


@dataclass(frozen=True)
class Window:
    """One input of the encoder, without padding.

    Attributes:
        ids: Token ids with the special tokens, shape [tokens].
        types: Token type ids, shape [tokens].
        offsets: Character range of each token in the post, shape [tokens, 2]; (-1, -1) for a token not of the post.
        post_start: Index of the first token of the post.
    """

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    offsets: NDArray[np.int64]
    post_start: int

    def __len__(self) -> int:
        return len(self.ids)


class Windows:
    """Cuts posts into windows `[CLS] criterion [SEP] part of the post [SEP]`, in the tokenizer's own form.

    Args:
        tokenizer: The encoder's tokenizer.
        template: The form in which it encodes pairs.
        max_length: Most tokens in a window, special tokens and criterion included.
        stride: Tokens of the post that neighbouring windows share.

    Raises:
        InputError: The encoder cannot read windows of this length.
    """

    def __init__(self, tokenizer: Tokenizer, template: PairTemplate, *, max_length: int, stride: int) -> None:
        self.max_length, self.stride = max_length, stride
        self.pad_id = template.pad_id
        self._tokenizer = tokenizer
        self._refuse_lengths(template.longest)
        self._pieces = [np.array(piece, np.int64) for piece in template.pieces]
        self._piece_types = [np.array(types, np.int64) for types in template.piece_types]
        self._section_types = template.section_types
        self._has_types = template.has_types
        self._specials = sum(len(piece) for piece in self._pieces)

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerFast", *, max_length: int, stride: int) -> Self:
        """Windows in the form of a tokenizer of transformers."""
        return cls(tokenizer.backend_tokenizer, PairTemplate.of(tokenizer), max_length=max_length, stride=stride)

    def tokenize(self, texts: Iterable[str]) -> list[TokenizedText]:
        """Texts as tokens, criteria and posts alike; nothing is cut."""
        return tokenize(self._tokenizer, texts)

    def refuse_criteria(self, criteria: Iterable[TokenizedText]) -> None:
        """Refuse lengths that leave too little room for the post beside the longest criterion.

        Raises:
            InputError: Naming the least length and the largest stride that would work.
        """
        longest = max((len(criterion) for criterion in criteria), default=0)
        room = self.max_length - longest - self._specials
        if room <= self.stride:
            least = longest + self._specials + self.stride + 1
            within = f"--data.stride must be below {room}" if room > 0 else "no --data.stride is small enough"
            raise InputError(
                f"--data.max_length: {self.max_length} is too small: the criteria take up to {longest} tokens and"
                f" windows share {self.stride} of the post; use {least} or more, or {within}"
            )

    def room(self, criterion: TokenizedText) -> int:
        """Tokens of a post that a window has room for beside a criterion."""
        return self.max_length - len(criterion) - self._specials

    def ranges(self, tokens: int, criterion: TokenizedText) -> list[tuple[int, int]]:
        """Token ranges [first, stop) of a post of so many tokens, one for each window; at least one."""
        room = self.room(criterion)
        step = room - self.stride
        windows = int(self.count(np.array(tokens), np.array(room)))
        return [(first * step, min(first * step + room, tokens)) for first in range(windows)]

    def count(self, tokens: NDArray[np.int64], room: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many windows posts of so many tokens have, shape [posts].

        Args:
            tokens: Of each post, shape [posts].
            room: Tokens of a post that each of its windows has room for, shape [posts].
        """
        further: NDArray[np.int64] = np.maximum(0, -((room - tokens) // (room - self.stride)))
        return 1 + further

    def compose(self, criterion: TokenizedText, part: TokenizedText) -> Window:
        """One window of a criterion and a part of a post."""
        before, between, after = self._pieces
        ids = np.concatenate([before, criterion.ids, between, part.ids, after])
        lengths = [len(before), len(criterion), len(between), len(part), len(after)]
        post_start = sum(lengths[:3])
        offsets = np.full((len(ids), 2), -1, np.int64)
        offsets[post_start : post_start + len(part)] = part.offsets
        types = [np.full(len(criterion), self._section_types[0]), np.full(len(part), self._section_types[1])]
        all_types = np.concatenate(
            [self._piece_types[0], types[0], self._piece_types[1], types[1], self._piece_types[2]], dtype=np.int64
        )
        return Window(ids.astype(np.int64), all_types, offsets, post_start)

    def collate(self, windows: Sequence[Window]) -> dict[str, Tensor]:
        """Windows as a batch: `input_ids`, `attention_mask` and, where the encoder has them, `token_type_ids`.

        Each has the shape [windows, tokens of the longest, rounded up]; padding is on the right.
        """
        batch = {
            "input_ids": self._padded([window.ids for window in windows], self.pad_id),
            "attention_mask": self._padded([np.ones(len(window), np.int64) for window in windows], 0),
        }
        if self._has_types:
            batch["token_type_ids"] = self._padded([window.types for window in windows], 0)
        return batch

    def offsets(self, windows: Sequence[Window]) -> Tensor:
        """Character offsets of a batch, shape [windows, tokens, 2]; (-1, -1) where a token is not of the post."""
        return self._padded([window.offsets for window in windows], -1)

    def _padded(self, rows: Sequence[NDArray[np.int64]], value: int) -> Tensor:
        longest = max(len(row) for row in rows)
        length = min(-(-longest // _LENGTH_STEP) * _LENGTH_STEP, max(self.max_length, longest))
        batch = np.full((len(rows), length, *rows[0].shape[1:]), value, np.int64)
        for index, row in enumerate(rows):
            batch[index, : len(row)] = row
        return torch.from_numpy(batch)

    def _refuse_lengths(self, readable: int) -> None:
        problems = []
        if self.max_length > readable:
            problems.append(f"--data.max_length: {self.max_length} is more than the {readable} that the encoder reads")
        if self.max_length < 1:
            problems.append(f"--data.max_length: {self.max_length} is no length; 512 is usual")
        if self.stride < 0:
            problems.append(f"--data.stride: {self.stride} is below 0; a quarter of --data.max_length is usual")
        if problems:
            raise InputError(problems)
