"""One optimizer update from one window of micro-batches: the heart of the loop.

B: samples of a micro-batch, C: channels, H, W: height and width, K: classes. A window holds `effective_batch` samples
(fewer at an epoch's end), split into micro-batches that fit the memory. Nothing here waits for the device: norms,
counters and flags stay on it until the epoch's end.

A window that fails before its update can be undone and tried again in smaller parts (`remember`, `go_back`): see
retries/out_of_memory.py. Everything that an update reads or changes stays in its place in memory, so that a runner may
capture it (see graphs.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import profiler

from tune_cropshield import torch_private
from tune_cropshield.config.settings import Precision
from tune_cropshield.data.mixing import Targets
from tune_cropshield.data.windows import MicroBatch, Window
from tune_cropshield.training.clipping import Clipping, clip_gradients
from tune_cropshield.training.ema import WeightAverage
from tune_cropshield.training.gradients import FixedGradients, FreshGradients, Gradients
from tune_cropshield.training.graphs import Eager, Runner
from tune_cropshield.training.losses import SampleLoss
from tune_cropshield.training.models import Frozen, head_of
from tune_cropshield.training.optimizers import follow_lr, scale_momentum
from tune_cropshield.training.precision import DTYPES, autocast
from tune_cropshield.training.update_log import UpdateLog

# What a profiler shows the parts of a step under.
AUGMENTATION, FORWARD_BACKWARD, OPTIMISER = PROFILER_LABELS = ("augmentation", "forward + backward", "optimiser")


class WindowStep:
    """Turns windows into updates.

    `micro_step` is made for each micro-batch of a window, then `update`; `train_window` does both, by way of `runner`.

    Attributes:
        lr: 0-dim tensor that the optimizer reads: `peak_lr` times `lr_scale` times the factor that `lr_factors` holds
            for the number of applied updates. Groups of the optimizer with a factor of their own read a share of it.
        frozen: the backbone, while the head trains alone. It belongs to the optimizer all the time: what has no
            gradient is left as it is, and its state stays zero.
        momentum_factors: what SGD's momentum is multiplied by, in the same way; None where it stays as it is.
        updates: 0-dim int64 tensor, the applied updates so far. Time is counted in these: a skipped update moves
            neither schedule nor average.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        *,
        lr: Tensor,
        peak_lr: float,
        lr_factors: Tensor,
        momentum_factors: Tensor | None = None,
        clipping: Clipping | None,
        precision: Precision,
        loss: SampleLoss,
        average: WeightAverage | None,
        log: UpdateLog,
        runner: Runner | None = None,
        frozen: Frozen | None = None,
    ) -> None:
        self.model, self.optimizer, self.scaler = model, optimizer, scaler
        self.lr, self.peak_lr, self.lr_factors, self.momentum_factors = lr, peak_lr, lr_factors, momentum_factors
        self.clipping, self.precision, self.average, self.log = clipping, precision, average, log
        self.loss = loss
        self.runner: Runner = runner or Eager()
        self.frozen = frozen
        adaptive = clipping is not None and clipping.kind == "agc"
        self._classifier = list(head_of(model)[1].parameters()) if adaptive else []
        self.device = lr.device
        self.updates = torch.zeros((), dtype=torch.int64, device=self.device)
        self.lr_scale = torch.ones((), device=self.device)  # plateau's drops
        self.updating = False  # the optimizer has begun to change the weights: this window can no longer be undone
        self._window_loss = torch.zeros((), device=self.device)
        self._buffer_copies = [
            (buffers, [torch.empty_like(buffer) for buffer in buffers]) for buffers in _by_type(model.buffers())
        ]
        self._random_state = random_state(self.device)
        self._begin_stage()
        if scaler.is_enabled():
            # Makes the scaler's scale, which must not first be made inside a captured graph.
            scaler.scale(torch.zeros((), device=self.device))
        self.set_lr()

    def _begin_stage(self) -> None:
        """Takes the parameters that are to be trained from now on, and makes room for their gradients."""
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.gradients: Gradients = (
            FixedGradients(self.model, self.parameters, DTYPES[self.precision])
            if self.runner.keeps_gradients
            else FreshGradients(self.model, self.parameters)
        )
        # For the runner, the work of another stage is other work: other kernels run.
        self._stage = "" if self.frozen is None else " of the head alone"

    def unfreeze(self) -> None:
        """Trains the whole network from now on; between windows, and before `model.train()`."""
        if self.frozen is not None:
            self.frozen.undo()
            self.frozen = None
            self.runner.forget()  # what was captured trains the head alone
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # the pieces that it took do not fit the whole network's
            self._begin_stage()

    def train_window(self, window: Window) -> None:
        """Makes one update from `window`."""
        weight = self.loss.weight(window.targets)
        for batch in window.micro_batches:
            self.runner.run(f"micro-step{self._stage}", self._train_on, batch, weight, undo=self.gradients.drop)
        with named(OPTIMISER):
            self.runner.run(f"update{self._stage}", self.update, weight, undo=self._undo_update)

    def remember(self) -> None:
        """Notes what micro-steps change beside the gradients.

        That is: batch-norm statistics, and the random generators (dropout's).
        """
        self._random_state = random_state(self.device)
        for buffers, copies in self._buffer_copies:
            torch_private.foreach_copy_(copies, buffers)

    def go_back(self) -> None:
        """Undoes the micro-steps since `remember`.

        The window can be trained anew, in other parts, as if it had not begun.
        """
        assert not self.updating
        self._undo_update()
        self.gradients.clear()
        self._window_loss.zero_()
        for buffers, copies in self._buffer_copies:
            torch_private.foreach_copy_(buffers, copies)
        restore_random_state(self._random_state, self.device)

    def _undo_update(self) -> None:
        """Takes back what an update that nothing of has run on the device has noted on the host."""
        self.updating = False
        if self.scaler.is_enabled():
            torch_private.forget_unscaled(self.scaler)
        for name in ("grad_scale", "found_inf"):  # what a fused optimizer is told
            if hasattr(self.optimizer, name):
                delattr(self.optimizer, name)
        self.gradients.drop()

    def _train_on(self, batch: MicroBatch, window_weight: Tensor) -> None:
        with named(AUGMENTATION):
            images_BCHW = batch.images()
        with named(FORWARD_BACKWARD):
            self.micro_step(images_BCHW, batch.targets, window_weight)

    def micro_step(self, images_BCHW: Tensor, targets: Targets, window_weight: Tensor) -> None:
        """Adds this micro-batch's share of the window's gradient: that of (its loss sum) / `window_weight`.

        `window_weight` is the weight of the *whole* window's targets, so the micro-batches' gradients add up to the
        window's, exactly, whatever their sizes: ragged tails, class weights, smoothing and mixed targets included.
        """
        with autocast(self.precision, self.device):
            logits_BK = self.gradients.forward(images_BCHW)
        loss = self.loss.sum(logits_BK, targets) / window_weight
        self.scaler.scale(loss).backward()
        self.gradients.add()
        self._window_loss += loss.detach()

    def update(self, window_weight: Tensor) -> None:
        """Unscales once, clips, steps unless a gradient is not finite, and clears the gradients.

        In fp16 the scaler notes non-finite gradients and halves its scale; in bf16 and fp32 nothing else would guard
        the weights, so the step is told of them in the same way, through `found_inf`, which fused optimizers read on
        the device. There the epoch's other updates are left out too: the trial ends, and what its end is told by must
        not depend on how many windows later the host sees it.
        """
        self.scaler.unscale_(self.optimizer)
        grad_norm, clipped = clip_gradients(self.parameters, self.clipping, self._classifier)
        self.updating = True
        if self.scaler.is_enabled():
            applied = (torch_private.found_inf(self.scaler, self.optimizer) == 0).float()
            self._set_momentum(applied)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            applied = (torch.isfinite(grad_norm) & (self.log.skipped == 0)).float()
            self._set_momentum(applied)
            self._step_if(applied)
        self.gradients.clear()
        self.updates += applied.long()
        if self.average is not None:
            self.average.update(self.updates, applied)
        self.log.add(self._window_loss, window_weight, grad_norm, clipped, applied, self.lr)
        self._window_loss.zero_()
        self.set_lr()
        self.updating = False

    def _step_if(self, applied: Tensor) -> None:
        """Makes the optimizer's step where `applied` (0-dim, 0 or 1) is 1.

        Fused optimizers look at it on the device; for others the host has to wait for it.
        """
        if not torch_private.reads_found_inf(self.optimizer):
            if bool(applied):
                self.optimizer.step()
            return
        self.optimizer.grad_scale, self.optimizer.found_inf = None, 1 - applied  # type: ignore[attr-defined]
        self.optimizer.step()
        del self.optimizer.grad_scale, self.optimizer.found_inf  # type: ignore[attr-defined]

    def set_lr(self) -> None:
        """Sets the learning rate of the next update from the applied updates so far."""
        self.lr.copy_(self.peak_lr * self.lr_scale * self._now(self.lr_factors))
        follow_lr(self.optimizer, self.lr)

    def _set_momentum(self, applied: Tensor) -> None:
        """Sets the momentum of this update where it is `applied`; a skipped one leaves the optimizer as it is."""
        if self.momentum_factors is not None:
            scale_momentum(self.optimizer, torch.where(applied > 0, self._now(self.momentum_factors), 1.0))

    def _now(self, factors: Tensor) -> Tensor:
        """Returns the factor of the update that comes after the applied ones; past the end the last one stays."""
        # Not factors[update]: indexing by a 0-dim tensor asks the host for its value.
        return factors.index_select(0, self.updates.clamp(max=len(factors) - 1).view(1))[0]


def _by_type(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Returns the tensors grouped by their type: torch copies a list of one type in a single kernel."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


def named(name: str) -> AbstractContextManager[object]:
    """Returns a block that a running profiler shows under `name`."""
    return profiler.record_function(name) if torch_private.is_profiling() else nullcontext()


def seed_everything(seed: int) -> None:
    """Seeds torch's CPU and GPU generators, and those of Python and NumPy, which a user's own network may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Returns the generators' states as byte tensors."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Sets the generators to `state`; a state saved on a CPU leaves the GPU's generator as it is."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
