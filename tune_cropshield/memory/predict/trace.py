"""Records which storages one training window allocates and frees, without a GPU.

The model runs on PyTorch's `meta` device, which has shapes and no data, as a CUDA GPU would run it (see
cuda_semantics). B: images of a micro-batch, C: channels, H, W: height and width.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tune_cropshield.config.settings import Precision
from tune_cropshield.data.mixing import Targets
from tune_cropshield.errors import ConfigError, EstimateUnavailable
from tune_cropshield.memory.predict import torch_private
from tune_cropshield.memory.predict.cuda_semantics import cuda_semantics
from tune_cropshield.memory.predict.events import FREED, TracedEvent, Window
from tune_cropshield.memory.predict.kernels import MATRIX_PRODUCTS, scratch_of
from tune_cropshield.memory.predict.scratch import Scratch
from tune_cropshield.training.losses import CrossEntropy, SampleLoss


class _StorageRecorder(torch_private.DispatchMode):
    """Writes an event when an operator returns a storage not seen before, and when a storage dies.

    PyTorch hands out the same Python object for a storage as long as the storage lives, so that its `id` tells it and a
    weak reference dies with it.
    """

    def __init__(self, channels_last: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.channels_last = channels_last
        self.events: list[TracedEvent] = []
        self.matrix_products = False
        self.slots = 0
        self.living: dict[int, weakref.ref[Any]] = {}  # by the id of the storage
        self.slot_of: dict[int, int] = {}  # likewise; without those that are ignored

    def ignore(self, tensor: Tensor) -> None:
        """Leaves `tensor`, which lives before and after the window, out of the events."""
        storage = tensor.untyped_storage()
        self.living[id(storage)] = weakref.ref(storage)

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if id(storage) not in self.living and storage.nbytes():
            self._follow(storage, self._allocate(storage.nbytes()))

    def _follow(self, storage: torch.UntypedStorage, slot: int) -> None:
        """Frees `slot` when `storage` dies."""
        key = id(storage)

        def died(_: object) -> None:
            del self.living[key]
            if key in self.slot_of:
                self.events.append((self.slot_of.pop(key), FREED))

        self.slot_of[key] = slot
        self.living[key] = weakref.ref(storage, died)

    def _allocate(self, size: int | Scratch) -> int:
        slot = self.slots
        self.slots += 1
        self.events.append((slot, size))
        return slot

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        in_place = bool(args) and isinstance(args[0], Tensor) and torch_private.sums_in_place(func, args[0])
        outputs = func(*args, **(kwargs or {}))
        if in_place and (slot := self.slot_of.pop(id(args[0].untyped_storage()), None)) is not None:
            self._follow(outputs.untyped_storage(), slot)
        results = outputs if isinstance(outputs, tuple | list) else (outputs,)
        for output in results:
            if isinstance(output, Tensor):
                self._see(output)
        for scratch in scratch_of(func, args, results, self.channels_last):
            self.events.append((self._allocate(scratch), FREED))
        self.matrix_products |= func in MATRIX_PRODUCTS
        return outputs


def meta_copy(build: Callable[[], nn.Module], channels_last: bool) -> nn.Module:
    """Returns the model that `build` makes, on the meta device.

    One whose constructor reads values is made on the CPU first.
    """
    try:
        with torch.device("meta"):
            model = build()
    except (RuntimeError, NotImplementedError, ConfigError):  # the last of a user's own
        model = build().to("meta")
    return model.to(memory_format=torch.channels_last) if channels_last else model


def _recorder(model: nn.Module, images_BCHW: Tensor, classes_B: Tensor, channels_last: bool) -> _StorageRecorder:
    recorder = _StorageRecorder(channels_last)
    for tensor in (images_BCHW, classes_B, *model.parameters(), *model.buffers()):
        recorder.ignore(tensor)
    return recorder


def _inputs(batch: int, image_size: int, channels_last: bool) -> tuple[Tensor, Tensor]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images_BCHW = torch.empty(batch, 3, image_size, image_size, device="meta").contiguous(memory_format=layout)
    return images_BCHW, torch.empty(batch, dtype=torch.long, device="meta")


def trace_window(
    model: nn.Module,
    batch: int,
    image_size: int,
    precision: Precision,
    channels_last: bool,
    loss: SampleLoss | None = None,
) -> Window:
    """Returns the events of one window.

    That is: autocast forward, summed loss and scaled backward, twice, then `zero_grad(set_to_none=True)`.

    Args:
        model: on the meta device.
        batch: images of a micro-batch.
        image_size: px, square.
        loss: cross-entropy where left out.

    Raises:
        EstimateUnavailable: the model cannot run without data.
    """
    images_BCHW, classes_B = _inputs(batch, image_size, channels_last)
    recorder = _recorder(model, images_BCHW, classes_B, channels_last)
    loss = loss or CrossEntropy()
    model.train()
    ends = []
    cast_cache_bytes = 0
    try:
        with recorder:
            for _ in range(2):
                with cuda_semantics(precision) as casts:
                    summed = loss.sum(model(images_BCHW), Targets(classes_B))
                    cast_cache_bytes = casts.num_bytes()
                    casts.clear()
                (summed * 1.0).backward()
                del summed
                ends.append(len(recorder.events))
            model.zero_grad(set_to_none=True)
    except Exception as error:
        model.zero_grad(set_to_none=True)
        raise EstimateUnavailable(f"the model's training step cannot be traced without a GPU: {error}") from error
    events = tuple(recorder.events)
    return Window(
        events[: ends[0]], events[ends[0] : ends[1]], events[ends[1] :], cast_cache_bytes, recorder.matrix_products
    )
