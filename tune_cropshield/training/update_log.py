"""What happened in an epoch's updates, kept on the device and read once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class UpdateSummary:
    """An epoch's updates. Quantiles are over applied updates, whose norms are finite; NaN when there was none."""

    train_loss: float  # weighted mean over the epoch's samples in applied updates
    grad_norm_p50: float
    grad_norm_p95: float
    last_grad_norm: float  # of the last applied update, of this epoch or one before; NaN when there was none
    clip_rate: float  # share of applied updates that clipping changed
    last_lr: float  # of the last update
    skipped_steps: int


class UpdateLog:
    """Room for the loss, norm and flags of up to `capacity` updates, on `device`.

    `add` counts on the device, so that a CUDA graph can hold it.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._rows = torch.zeros(capacity, 6, device=device)  # loss * weight, weight, norm, clipped, applied, lr
        self._count = torch.zeros(1, dtype=torch.int64, device=device)
        self._last_norm = torch.full((), torch.nan, device=device)
        self.skipped = torch.zeros((), device=device)  # updates of this epoch
        # A copy that the host may look at without waiting: it can be a few updates late on a GPU.
        self._skipped_on_host = torch.zeros((), pin_memory=device.type == "cuda")

    def start(self) -> None:
        """Begins an epoch."""
        self._count.zero_()
        self.skipped.zero_()
        self._skipped_on_host.zero_()

    def add(
        self, loss: Tensor, weight: Tensor, grad_norm: Tensor, clipped: Tensor, applied: Tensor, lr: Tensor
    ) -> None:
        """Notes one update; all arguments are 0-dim tensors on the device."""
        self._rows.index_copy_(
            0, self._count, torch.stack([loss * weight, weight, grad_norm, clipped.float(), applied, lr])[None]
        )
        self._count += 1
        self._last_norm.copy_(torch.where(applied > 0, grad_norm, self._last_norm))
        self.skipped += 1 - applied
        self._skipped_on_host.copy_(self.skipped, non_blocking=True)

    def skipped_so_far(self) -> bool:
        """Tells, without waiting for the device, whether an update of this epoch is known to have been skipped."""
        return bool(self._skipped_on_host > 0)

    def summary(self) -> UpdateSummary:
        """Waits for the device and returns the epoch's figures."""
        rows = self._rows[: int(self._count)].cpu().double()
        applied = rows[rows[:, 4] == 1]
        norms = applied[:, 2]
        quantiles = (
            torch.quantile(norms, torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
            if len(norms)
            else [float("nan")] * 2
        )
        return UpdateSummary(
            train_loss=float(applied[:, 0].sum() / applied[:, 1].sum()),
            grad_norm_p50=quantiles[0],
            grad_norm_p95=quantiles[1],
            last_grad_norm=float(self._last_norm),
            clip_rate=float(applied[:, 3].mean()) if len(norms) else 0.0,
            last_lr=float(rows[-1, 5]),
            skipped_steps=int((rows[:, 4] == 0).sum()),
        )
