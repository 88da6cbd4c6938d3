"""Networks of several trainings as one torch module that `torch.export` can export."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_hpo.agents.network.text_network import TextNetwork

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """Mean of the logits of several networks of the same class.

    The log odds of two classes, and the log probabilities of starts and ends up to a constant in each window, are then
    the means of those of the networks.

    Args:
        networks: The networks.
    """

    def __init__(self, networks: Sequence[TextNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(
        self,
        first: Tensor,
        second: Tensor,
        third: Tensor | None = None,
        fourth: Tensor | None = None,
        fifth: Tensor | None = None,
        sixth: Tensor | None = None,
    ) -> Tensor:
        """Return the mean logits in float32, given the inputs of the networks in their order."""
        # An argument each: torch.export takes `*inputs` as one.
        inputs = [each for each in (first, second, third, fourth, fifth, sixth) if each is not None]
        # No `Tensor.float`: torch.export would check that its input is float32, which it is not under autocast.
        return torch.stack([network(*inputs) for network in self.networks]).mean(dim=0, dtype=torch.float32)

    def example_inputs(self, *, types: bool) -> tuple[Tensor, ...]:
        """Return inputs of the right shapes, with token type ids or without."""
        network = self.networks[0]
        assert isinstance(network, TextNetwork)
        return network.example_inputs(types=types)
