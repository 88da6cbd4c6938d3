"""Networks of several trainings as one torch module that `torch.export` can export."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """Mean of the logits of several networks that take the same inputs.

    The log odds of two classes, and the log probabilities of starts and ends up to a constant in each window, are then
    the means of those of the networks.

    Args:
        networks: The networks.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the mean logits in float32, given the inputs of a `TextNetwork`."""
        # Named, since torch.export takes one shape for each argument.
        types = () if token_type_ids is None else (token_type_ids,)
        inputs = (input_ids, attention_mask, *types)
        # No `Tensor.float`: torch.export would check that its input is float32, which it is not under autocast.
        return torch.stack([network(*inputs) for network in self.networks]).mean(dim=0, dtype=torch.float32)
