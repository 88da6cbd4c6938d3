"""Encoder and head as one torch module that `torch.export` can export."""

import inspect
from typing import cast

from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["TextNetwork"]


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
        types = {"token_type_ids": token_type_ids} if self._reads_types and token_type_ids is not None else {}
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        return cast(Tensor, self.head(hidden, attention_mask))
