"""What a batch should be classified as."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """What a micro-batch should be classified as.

    labels_B: int64. With MixUp or CutMix each sample is `share_B` of its own class and 1 - `share_B` of `partner_labels_B`.
    """

    labels_B: Tensor
    partner_labels_B: Tensor | None = None
    share_B: Tensor | None = None

    def slice(self, start: int, stop: int) -> Targets:
        """Returns the targets of samples `start` to `stop`."""
        if self.partner_labels_B is None or self.share_B is None:
            return Targets(self.labels_B[start:stop])
        return Targets(self.labels_B[start:stop], self.partner_labels_B[start:stop], self.share_B[start:stop])
