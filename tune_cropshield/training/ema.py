"""An exponential moving average of the weights that moves only with applied updates."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tune_cropshield import torch_private


class WeightAverage:
    """Keeps average = decay * average + (1 - decay) * weights; `model` is the averaged network, ready to evaluate.

    Early on the decay is (1 + n) / (10 + n) after n updates, if that is less, so that the random start is soon
    forgotten. Buffers (batch-norm statistics) are copied, not averaged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False)
        self._sources = [parameter.detach() for parameter in model.parameters()]
        self._averages = [parameter.detach() for parameter in self.model.parameters()]
        self._source_buffers = list(model.buffers())
        self._buffers = list(self.model.buffers())

    def update(self, updates: Tensor, applied: Tensor) -> None:
        """Takes in the weights after an update.

        updates: counts the applied ones. applied: 0-dim, 0 or 1; 0 where this one was skipped.
        """
        decay = torch.clamp((1 + updates) / (10 + updates), max=self.decay)
        share = (1 - decay) * applied
        # One by one, in place: all at once they would take the weights' memory again, after the weights have changed,
        # when running out of it can no longer be undone.
        for average, source in zip(self._averages, self._sources, strict=True):
            average.lerp_(source, share.to(average.dtype))
        if self._buffers:
            torch_private.foreach_copy_(self._buffers, self._source_buffers)
