"""Where a window's gradients are summed, and the weights that the network computes with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Gradients(Protocol):
    """Sums the gradients of a window's micro-steps in the parameters' `grad`: `forward`, then `backward` of its loss, then `add`."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Returns the network's logits (B, K)."""

    def add(self) -> None:
        """Adds what the backward pass has left to the window's sums."""

    def clear(self) -> None:
        """Begins a new window; also after a micro-step that failed midway."""


class FreshGradients:
    """Autograd's own: each window's gradients lie where there is room."""

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        self._model, self._parameters = model, parameters

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self._model(images_BCHW)
        return logits_BK

    def add(self) -> None:
        """Does nothing: autograd has added them."""

    def clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


class FixedGradients:
    """Gradients that stay in one place in memory, as a captured graph demands; weights, casts and sums in a handful of launches.

    By itself PyTorch adds each gradient to its sum, and autocast casts each weight there and its gradient back, by a kernel of its own: 430 of
    EfficientNet-B0's 1,200 operations in a micro-step, which at small batches last as long as the larger ones. Here all weights that autocast would
    cast are cast at once, and all gradients cast back and added at once. The numbers are the same.
    Takes the gradients' memory twice for a moment, when a backward pass has let go of its activations.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter], dtype: torch.dtype) -> None:
        """parameters: those that are trained. dtype: what autocast computes in; fp32 where it is off."""
        self._model, self._parameters = model, parameters
        self._sums = [torch.zeros_like(parameter) for parameter in parameters]
        masters = _cast_by_autocast(model) if dtype != torch.float32 else {}
        self._masters: list[Tensor] = list(masters.values())
        self._casts = {name: torch.empty_like(master, dtype=dtype).requires_grad_(master.requires_grad) for name, master in masters.items()}
        cast_of = {id(master): cast for master, cast in zip(self._masters, self._casts.values(), strict=True)}
        self._leaves = [cast_of.get(id(parameter), parameter) for parameter in parameters]  # where autograd leaves their gradients
        self._met = [False] * len(parameters)  # whether there ever was one: an optimizer leaves the others alone

    def forward(self, images_BCHW: Tensor) -> Tensor:
        for leaf in self._leaves:
            leaf.grad = None  # so that autograd leaves the new gradient there, and adds nothing
        if self._casts:
            with torch.no_grad():
                torch._foreach_copy_(list(self._casts.values()), self._masters)
        logits_BK: Tensor = functional_call(self._model, self._casts, (images_BCHW,))
        return logits_BK

    def add(self) -> None:
        self._met = [met or leaf.grad is not None for met, leaf in zip(self._met, self._leaves, strict=True)]
        found = [(leaf.grad, total) for leaf, total in zip(self._leaves, self._sums, strict=True) if leaf.grad is not None]
        narrow = [(gradient, total) for gradient, total in found if gradient.dtype != total.dtype]
        wide = [(torch.empty_like(total), total) for _, total in narrow]
        if narrow:
            torch._foreach_copy_([copy for copy, _ in wide], [gradient for gradient, _ in narrow])
        alike = [*(pair for pair in found if pair[0].dtype == pair[1].dtype), *wide]
        torch._foreach_add_([total for _, total in alike], [gradient for gradient, _ in alike])
        self._show_sums()

    def clear(self) -> None:
        self._show_sums()
        torch._foreach_zero_(self._sums)

    def _show_sums(self) -> None:
        for leaf in self._leaves:
            leaf.grad = None
        for parameter, total, met in zip(self._parameters, self._sums, self._met, strict=True):
            parameter.grad = total if met else None


def _cast_by_autocast(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns {name: parameter} of the layers that autocast runs in its own type, whatever the type of their weights."""
    return {
        f"{path}.{name}" if path else name: parameter
        for path, layer in model.named_modules()
        if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd))
        for name, parameter in layer.named_parameters(recurse=False)
        if parameter.dtype == torch.float32
    }
