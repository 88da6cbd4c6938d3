"""An encoder and a head: tensors in, logits out, and nothing else, so that it can be exported."""

import inspect
from typing import cast

from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["TextNetwork"]


class TextNetwork(nn.Module):
    """Encoder and head as one pure torch module.

    Args:
        encoder: Any Hugging Face encoder.
        head: Module from (hidden states [B, T, H], mask [B, T]) to logits.
    """

    def __init__(self, encoder: PreTrainedModel, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self._reads_types = _reads_types(encoder)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Give the head's logits for a batch of windows, each input [B, T] of integers."""
        types = {"token_type_ids": token_type_ids} if self._reads_types and token_type_ids is not None else {}
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        return cast(Tensor, self.head(hidden, attention_mask))


def _reads_types(encoder: PreTrainedModel) -> bool:
    # A tokenizer may make types that its encoder has no embedding for (type 1 of one type: an index error).
    known = getattr(encoder.config, "type_vocab_size", 2)
    return "token_type_ids" in inspect.signature(encoder.forward).parameters and known > 1
