"""Encoder and head as one torch module that `torch.export` can export."""

import inspect
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["OnePassNetwork", "TextNetwork"]

# Two rows: torch.export treats a dimension of size one as a constant.
_ROWS, _TOKENS = 2, 16


class TextNetwork(nn.Module):
    """Encoder and head: tensors in, logits out.

    Args:
        encoder: Any Hugging Face encoder.
        head: Module that maps hidden states [B, T, H] and a mask [B, T] to logits.
    """

    def __init__(self, encoder: PreTrainedModel, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        # A tokenizer may return type 1 although the encoder has an embedding for type 0 only: an index error.
        known = getattr(encoder.config, "type_vocab_size", 2)
        self._reads_types = "token_type_ids" in inspect.signature(encoder.forward).parameters and known > 1

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the logits of a batch of windows. Each input is [B, T] integers."""
        return cast(Tensor, self.head(self._read(input_ids, attention_mask, token_type_ids), attention_mask))

    def example_inputs(self, *, types: bool) -> tuple[Tensor, ...]:
        """Return inputs of the right shapes, with token type ids or without."""
        return tuple(torch.ones(_ROWS, _TOKENS, dtype=torch.long) for _ in range(3 if types else 2))

    def _read(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        """Return the hidden states [B, T, H] of texts, each input [B, T]."""
        typed = {"token_type_ids": types} if self._reads_types and types is not None else {}
        return cast(Tensor, self.encoder(input_ids=ids, attention_mask=mask, **typed).last_hidden_state)


class OnePassNetwork(TextNetwork):
    """Network that reads each window and each criterion once, and gives the logits of each with each.

    Args:
        encoder: Any Hugging Face encoder, for windows and criteria.
        head: Module that maps the hidden states and the mask of windows, [W, T, H] and [W, T], and those of criteria,
            [C, S, H] and [C, S], to logits [W, C, ...].
    """

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        criterion_ids: Tensor,
        criterion_mask: Tensor,
        token_type_ids: Tensor | None = None,
        criterion_types: Tensor | None = None,
    ) -> Tensor:
        """Return the logits [W, C, ...] of windows, whose inputs are [W, T], for criteria, whose inputs are [C, S]."""
        windows = self._read(input_ids, attention_mask, token_type_ids)
        criteria = self._read(criterion_ids, criterion_mask, criterion_types)
        return cast(Tensor, self.head(windows, attention_mask, criteria, criterion_mask))

    def example_inputs(self, *, types: bool) -> tuple[Tensor, ...]:
        """Return inputs of the right shapes, with token type ids or without."""
        # Tensors and sizes that are all different: torch.export would take equal ones for the same.
        shapes = [(_ROWS, _TOKENS), (_ROWS, _TOKENS), (_ROWS + 1, 10), (_ROWS + 1, 10)]
        shapes += [(_ROWS, _TOKENS), (_ROWS + 1, 10)] if types else []
        return tuple(torch.ones(shape, dtype=torch.long) for shape in shapes)
