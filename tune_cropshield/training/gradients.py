"""Where a window's gradients are summed, and the weights that the network computes with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tune_cropshield import torch_private
from tune_cropshield.config.units import MIB
from tune_cropshield.training.host_copies import parts_of

LARGEST_PART_BYTES = 16 * MIB  # of fp32 gradients that are cast back at once
# A gradient that is larger, and needs no cast, is added to its sum while the backward pass runs.
LARGEST_LEFT_BYTES = MIB
CAST_LAYERS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
# Modules of these packages read the weights of their layers only by calling them, or as a factor of a product.
TRUSTED_PACKAGES = ("torch", "torchvision", "timm", "tune_cropshield")


class Gradients(Protocol):
    """Sums the gradients of a window's micro-steps in the parameters' `grad`.

    Call `forward`, then `backward` of its loss, then `add`.
    """

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Returns the network's logits (B, K)."""

    def add(self) -> None:
        """Adds what the backward pass has left to the window's sums."""

    def drop(self) -> None:
        """Forgets what a micro-step that failed midway has left beside the sums."""

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

    def drop(self) -> None:
        """Does nothing: there is only what autograd has added."""

    def clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


class FixedGradients:
    """Gradients that stay in one place in memory, as a captured graph demands.

    Weights, casts and sums take a handful of launches.

    By itself PyTorch adds each gradient to its sum, and autocast casts each weight there and its gradient back, by a
    kernel of its own: 430 of EfficientNet-B0's 1,200 operations in a micro-step, which at small batches last as long as
    the larger ones. Here all weights that autocast would cast are cast at once, and all gradients cast back and added
    at once. The numbers are the same. In half precision a backward pass ends with 4 bytes for each parameter more than
    by itself (its cast and that one's gradient), and with LARGEST_PART_BYTES; its activations are gone by then, so that
    only large networks at small batches notice.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter], dtype: torch.dtype) -> None:
        """parameters: those that are trained. dtype: what autocast computes in; fp32 where it is off."""
        self._model, self._parameters = model, parameters
        self._sums = [torch.zeros_like(parameter) for parameter in parameters]
        masters = _cast_by_autocast(model) if dtype != torch.float32 else {}
        self._masters: list[Tensor] = list(masters.values())
        self._casts = {name: torch.empty_like(master, dtype=dtype).requires_grad_() for name, master in masters.items()}
        cast_of = {id(master): cast for master, cast in zip(self._masters, self._casts.values(), strict=True)}
        # Where autograd leaves their gradients.
        self._leaves = [cast_of.get(id(parameter), parameter) for parameter in parameters]
        self._met = [False] * len(parameters)  # whether there ever was one: an optimizer leaves the others alone

    def forward(self, images_BCHW: Tensor) -> Tensor:
        for leaf, total, met in zip(self._leaves, self._sums, self._met, strict=True):
            # Autograd adds to a large sum itself, which saves memory. In the other places it leaves the new gradient,
            # which `add` then adds.
            leaf.grad = total if met and leaf.dtype == total.dtype and total.nbytes > LARGEST_LEFT_BYTES else None
        if self._casts:
            with torch.no_grad():
                torch_private.foreach_copy_(list(self._casts.values()), self._masters)
        logits_BK: Tensor = functional_call(self._model, self._casts, (images_BCHW,))
        return logits_BK

    def add(self) -> None:
        self._met = [met or leaf.grad is not None for met, leaf in zip(self._met, self._leaves, strict=True)]
        found = [
            (leaf.grad, total)
            for leaf, total in zip(self._leaves, self._sums, strict=True)
            if leaf.grad is not None and leaf.grad is not total
        ]
        alike = [(gradient, total) for gradient, total in found if gradient.dtype == total.dtype]
        if alike:
            torch_private.foreach_add_([total for _, total in alike], [gradient for gradient, _ in alike])
        narrow = iter([gradient for gradient, total in found if gradient.dtype != total.dtype])
        for totals in parts_of(
            [total for gradient, total in found if gradient.dtype != total.dtype], LARGEST_PART_BYTES
        ):
            wide = [torch.empty_like(total) for total in totals]
            torch_private.foreach_copy_(wide, list(itertools.islice(narrow, len(totals))))
            torch_private.foreach_add_(totals, wide)
        self.drop()

    def clear(self) -> None:
        self.drop()
        torch_private.foreach_zero_(self._sums)

    def drop(self) -> None:
        for leaf in self._leaves:
            leaf.grad = None
        for parameter, total, met in zip(self._parameters, self._sums, self._met, strict=True):
            parameter.grad = total if met else None


def _cast_by_autocast(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns {name: parameter} of the trained weights that autocast casts.

    These are the weights of layers that it runs in its own type. Only their layer's own product may read them: what
    else a network computes from such a weight would be computed in half precision. A class made from one of these
    layers may do that (to standardise its weights, say), and so may a user's own module with the weights of its layers:
    autocast is left to cast these itself.
    """
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for path, layer in model.named_modules():
        holder = model.get_submodule(path.rpartition(".")[0])
        if type(layer) in CAST_LAYERS and type(holder).__module__.partition(".")[0] in TRUSTED_PACKAGES:
            for name, parameter in layer.named_parameters(recurse=False):
                if name in ("weight", "bias") and parameter.requires_grad and parameter.dtype == torch.float32:
                    full_name = f"{path}.{name}" if path else name
                    found.setdefault(id(parameter), (full_name, parameter))  # tied weights once
    return dict(found.values())
