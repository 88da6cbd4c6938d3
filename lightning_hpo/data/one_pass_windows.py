"""Windows of posts alone, which are read for all criteria at once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer

from lightning_hpo.data.pair_template import PairTemplate
from lightning_hpo.data.tokenization import TokenizedText
from lightning_hpo.data.windows import Inputs, Part, Window, Windows
from lightning_hpo.exceptions import InputError

__all__ = ["Form", "OnePassWindows", "make_windows"]

Form = Literal["pairs", "one_pass"]
"""How posts and criteria are read: each criterion with the post, or the post once for all criteria."""


class OnePassWindows(Windows):
    """Cuts posts into windows such as `[CLS] part of the post [SEP]`, whatever the criterion.

    A batch has each criterion once, as `[CLS] criterion [SEP]`: `criterion_ids`, `criterion_mask` and, if the encoder
    has types, `criterion_types` [criteria, tokens]. `row_windows` and `row_criteria` [parts] hold the window and the
    criterion of each part.
    """

    def __init__(self, tokenizer: Tokenizer, template: PairTemplate, *, max_length: int, stride: int) -> None:
        super().__init__(tokenizer, template, max_length=max_length, stride=stride)
        self._before, self._after = self._pieces[0], self._pieces[2]
        # The type of the first text also for the special tokens behind it: there is no second text.
        first, second = self._section_types
        self._after_types = np.where(self._piece_types[2] == second, first, self._piece_types[2])
        self._specials = len(self._before) + len(self._after)

    @property
    def shares_posts(self) -> bool:
        """Whether all criteria of a post have the same windows."""
        return True

    def check_criteria(self, criteria: Iterable[TokenizedText]) -> None:
        """Check that a window has room for more than `stride` tokens of a post, and for each criterion.

        Raises:
            InputError: It has not. The message has the smallest `max_length` that works.
        """
        longest = max((len(criterion) for criterion in criteria), default=0)
        least = self._specials + max(longest, self.stride + 1)
        if self.max_length < least:
            raise InputError(
                f"--data.max_length: {self.max_length} is too small: the criteria take up to {longest} tokens and"
                f" windows share {self.stride} tokens of the post; use {least} or more"
            )

    def room(self, criterion: TokenizedText) -> int:  # noqa: ARG002 - the criterion is not in the window
        """Return the number of tokens of a post that fit into a window."""
        return self.max_length - self._specials

    def fits(self, criterion: TokenizedText) -> bool:
        """Return whether a criterion fits into a window of its own."""
        return len(criterion) + self._specials <= self.max_length

    def inputs(self, parts: Sequence[Part], *, offsets: bool = False) -> Inputs:
        """Return the inputs of the network for some parts: each part and each criterion once."""
        texts = {part.key: part.text for part in parts}
        criteria = {part.criterion_key: part.criterion for part in parts}
        windows = [self._alone(text) for text in texts.values()]
        tensors = self.collate(windows)
        for name, tensor in self.collate([self._alone(text) for text in criteria.values()]).items():
            tensors[_CRITERION_INPUTS[name]] = tensor
        places, columns = ({key: place for place, key in enumerate(keys)} for keys in (texts, criteria))
        rows = [places[part.key] for part in parts]
        tensors["row_windows"] = torch.tensor(rows)
        tensors["row_criteria"] = torch.tensor([columns[part.criterion_key] for part in parts])
        starts = [len(self._before)] * len(parts)
        return Inputs(tensors, starts, self.offsets(windows)[tensors["row_windows"]] if offsets else None)

    def _alone(self, text: TokenizedText) -> Window:
        ids = np.concatenate([self._before, text.ids, self._after], dtype=np.int64)
        offsets = np.full((len(ids), 2), -1, np.int64)
        offsets[len(self._before) : len(self._before) + len(text)] = text.offsets
        types = [self._piece_types[0], np.full(len(text), self._section_types[0]), self._after_types]
        return Window(ids, np.concatenate(types, dtype=np.int64), offsets, len(self._before))


_CRITERION_INPUTS: Mapping[str, str] = {
    "input_ids": "criterion_ids",
    "attention_mask": "criterion_mask",
    "token_type_ids": "criterion_types",
}


def make_windows(form: Form, tokenizer: Tokenizer, template: PairTemplate, *, max_length: int, stride: int) -> Windows:
    """Return the windows of a form. `Windows` explains the other arguments."""
    kind = OnePassWindows if form == "one_pass" else Windows
    return kind(tokenizer, template, max_length=max_length, stride=stride)
