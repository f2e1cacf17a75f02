"""All parameters of a network as one flat vector.

One vector means one optimiser operation, one norm and (with several learners) one all-reduce
instead of one per layer; on a small network that is a tenth of a minibatch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class FlatParameters:
    """Moves parameters of a module into one vector; the module goes on, as views into it.

    Call it once, after the module has reached its device: moving the module later breaks the views.
    `load_state_dict` of the module copies into the views, and so into the vector.
    """

    def __init__(self, of: nn.Module | Iterable[nn.Parameter]) -> None:
        """Takes all of a module's parameters, or these."""
        parameters = list(of.parameters() if isinstance(of, nn.Module) else of)
        self._parameters = parameters
        total = sum(parameter.numel() for parameter in parameters)
        device = parameters[0].device
        self.vector = nn.Parameter(torch.empty(total, device=device))
        self.gradient = torch.zeros(total, device=device)
        self.vector.grad = self.gradient
        start = 0
        for parameter in parameters:
            end = start + parameter.numel()
            with torch.no_grad():
                self.vector[start:end] = parameter.flatten()
            parameter.data = self.vector.data[start:end].view_as(parameter)
            parameter.grad = self.gradient[start:end].view_as(parameter)
            start = end

    def zero_gradient(self) -> None:
        """Sets the gradient of every parameter to 0."""
        self.gradient.zero_()

    def gradient_of(self, value: Tensor, *, keeps_graph: bool = False) -> Tensor:
        """Gives the gradient of a scalar as one vector, (P,), and leaves `gradient` alone.

        Args:
            value: ().
            keeps_graph: whether the result can be differentiated once more, as can `value`.
        """
        parts = torch.autograd.grad(
            value, self._parameters, create_graph=keeps_graph, materialize_grads=True
        )
        return torch.cat([part.flatten() for part in parts])

    def clip_gradient(self, max_norm: float) -> Tensor:
        """Shortens the gradient to length `max_norm` if it is longer; gives its old length."""
        norm: Tensor = torch.linalg.vector_norm(self.gradient)
        self.gradient.mul_((max_norm / (norm + 1e-6)).clamp_(max=1.0))
        return norm
