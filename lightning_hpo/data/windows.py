"""Combine criterion and post into windows of bounded length that together cover the whole post."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from lightning_hpo.data.pair_template import PairTemplate
from lightning_hpo.data.tokenization import TokenizedText, tokenize
from lightning_hpo.exceptions import InputError, raise_problems

__all__ = ["Inputs", "Part", "Window", "Windows"]

# Batches are padded to a multiple of this: tensor cores are faster with it, and there are fewer different shapes.
_LENGTH_STEP = 8


@dataclass(frozen=True)
class Window:
    """One input of the encoder, without padding.

    Attributes:
        ids: Token ids with the special tokens, shape [tokens].
        types: Token type ids, shape [tokens].
        offsets: Character range of each token in the post, shape [tokens, 2]; (-1, -1) for other tokens.
        post_start: Index of the first token of the post.
    """

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    offsets: NDArray[np.int64]
    post_start: int

    def __len__(self) -> int:
        return len(self.ids)


class Part(NamedTuple):
    """A part of a post, to be read for a criterion.

    Attributes:
        key: What the same part with another criterion has, too, and no other part of the batch.
        text: Tokens of the part.
        criterion_key: What the same criterion with another part has, too, and no other criterion of the batch.
        criterion: Tokens of the criterion.
    """

    key: Hashable
    text: TokenizedText
    criterion_key: Hashable
    criterion: TokenizedText


class Inputs(NamedTuple):
    """What the network reads for some parts.

    Attributes:
        tensors: Inputs of the network, by name.
        post_starts: Index of the first token of the post in the window of each part.
        offsets: Character range in the post of each token, [parts, tokens, 2]; (-1, -1) for tokens not of the post.
            None if they were not asked for.
    """

    tensors: dict[str, Tensor]
    post_starts: list[int]
    offsets: Tensor | None


class Windows:
    """Cuts posts into windows such as `[CLS] criterion [SEP] part of the post [SEP]`.

    Args:
        tokenizer: The encoder's tokenizer.
        template: The tokenizer's template of a pair.
        max_length: Maximum number of tokens in a window, including special tokens and criterion.
        stride: Number of tokens of the post that neighbouring windows share.

    Raises:
        InputError: The encoder cannot read windows of this length.
    """

    def __init__(self, tokenizer: Tokenizer, template: PairTemplate, *, max_length: int, stride: int) -> None:
        self.max_length, self.stride = max_length, stride
        self.pad_id = template.pad_id
        self._tokenizer = tokenizer
        self._check_lengths(template.longest)
        self._pieces = [np.array(piece, np.int64) for piece in template.pieces]
        self._piece_types = [np.array(types, np.int64) for types in template.piece_types]
        self._section_types = template.section_types
        self._has_types = template.has_types
        self._specials = sum(len(piece) for piece in self._pieces)

    @property
    def shares_posts(self) -> bool:
        """Whether all criteria of a post have the same windows."""
        return False

    def tokenize(self, texts: Iterable[str]) -> list[TokenizedText]:
        """Tokenize criteria or posts, without truncation."""
        return tokenize(self._tokenizer, texts)

    def check_criteria(self, criteria: Iterable[TokenizedText]) -> None:
        """Check that windows have room for more than `stride` tokens of the post, even with the longest criterion.

        Raises:
            InputError: They have not. The message has the smallest `max_length` and the largest `stride` that work.
        """
        longest = max((len(criterion) for criterion in criteria), default=0)
        room = self.max_length - longest - self._specials
        if room <= self.stride:
            least = longest + self._specials + self.stride + 1
            within = f"--data.stride must be below {room}" if room > 0 else "no --data.stride is small enough"
            raise InputError(
                f"--data.max_length: {self.max_length} is too small: the criteria take up to {longest} tokens and"
                f" windows share {self.stride} tokens of the post; use {least} or more, or {within}"
            )

    def room(self, criterion: TokenizedText) -> int:
        """Return the number of tokens of a post that fit into a window with a criterion."""
        return self.max_length - len(criterion) - self._specials

    def fits(self, criterion: TokenizedText) -> bool:
        """Return whether windows with a criterion have room for more than `stride` tokens of the post."""
        return self.room(criterion) > self.stride

    def ranges(self, tokens: int, criterion: TokenizedText) -> list[tuple[int, int]]:
        """Return the token range [first, stop) of each window, at least one, of a post with this number of tokens."""
        room = self.room(criterion)
        step = room - self.stride
        windows = int(self.count(np.array(tokens), np.array(room)))
        return [(first * step, min(first * step + room, tokens)) for first in range(windows)]

    def count(self, tokens: NDArray[np.int64], room: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of windows of each post, from its tokens and those that fit into a window, each [posts]."""
        further: NDArray[np.int64] = np.maximum(0, -((room - tokens) // (room - self.stride)))
        return 1 + further

    def compose(self, criterion: TokenizedText, part: TokenizedText) -> Window:
        """Combine a criterion and a part of a post into one window."""
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

    def inputs(self, parts: Sequence[Part], *, offsets: bool = False) -> Inputs:
        """Return the inputs of the network for some parts: one window for each."""
        windows = [self.compose(part.criterion, part.text) for part in parts]
        starts = [window.post_start for window in windows]
        return Inputs(self.collate(windows), starts, self.offsets(windows) if offsets else None)

    def collate(self, windows: Sequence[Window]) -> dict[str, Tensor]:
        """Make a batch of `input_ids`, `attention_mask` and, if the encoder has them, `token_type_ids`.

        The shape is [windows, tokens of the longest window, rounded up]. Padding is on the right.
        """
        batch = {
            "input_ids": self._padded([window.ids for window in windows], self.pad_id),
            "attention_mask": self._padded([np.ones(len(window), np.int64) for window in windows], 0),
        }
        if self._has_types:
            batch["token_type_ids"] = self._padded([window.types for window in windows], 0)
        return batch

    def offsets(self, windows: Sequence[Window]) -> Tensor:
        """Return the character offsets of a batch, shape [windows, tokens, 2]; (-1, -1) for tokens not of the post."""
        return self._padded([window.offsets for window in windows], -1)

    def _padded(self, rows: Sequence[NDArray[np.int64]], value: int) -> Tensor:
        longest = max(len(row) for row in rows)
        length = min(-(-longest // _LENGTH_STEP) * _LENGTH_STEP, max(self.max_length, longest))
        batch = np.full((len(rows), length, *rows[0].shape[1:]), value, np.int64)
        for index, row in enumerate(rows):
            batch[index, : len(row)] = row
        return torch.from_numpy(batch)

    def _check_lengths(self, readable: int) -> None:
        problems = []
        if self.max_length > readable:
            problems.append(f"--data.max_length: got {self.max_length}; the encoder reads at most {readable} tokens")
        if self.max_length < 1:
            problems.append(f"--data.max_length: got {self.max_length}; use 1 or more")
        if self.stride < 0:
            problems.append(f"--data.stride: got {self.stride}; use 0 or more")
        raise_problems(problems)
