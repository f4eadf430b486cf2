"""Pictures by their index, on the device.

They come from the device's own copy of the store, from memory, or streamed ahead through pinned buffers.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

BATCHES_AHEAD = 3  # batches in flight: one being trained on, one copied, one gathered


class ImageFeed:
    """Hands out uint8 pictures (B, S, S, 3) of a store on `device`.

    resident: keep a copy of the whole store on the device (it counts towards the memory budget). Otherwise a GPU is fed
    by a thread that gathers into pinned buffers ahead of the training step; a CPU gathers on the spot, since a second
    thread would only take its cores. `wait_s` adds up the time the caller stood waiting for pictures.
    """

    def __init__(self, images: Tensor, device: torch.device, resident: bool = False) -> None:
        self.device, self.resident = device, resident
        self._images = images.to(device) if resident else images
        self._streams = device.type == "cuda" and not resident
        self.wait_s = 0.0

    def stream(self, batches: Sequence[Tensor]) -> Generator[Tensor]:
        """Yields the pictures of each batch of indices (int64, on the CPU) in turn.

        Close the iterator to stop early.
        """
        if self._streams:
            yield from self._stream_ahead(batches)
            return
        if self.device.type == "cuda" and batches:
            # One copy for all: the driver may wait before it copies from memory that is not pinned.
            lengths = [len(indices) for indices in batches]
            batches = torch.cat(list(batches)).to(self.device, non_blocking=True).split(lengths)
        for indices in batches:
            started = time.perf_counter()
            images = self._images.index_select(0, indices)
            self.wait_s += time.perf_counter() - started
            yield images

    def _stream_ahead(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        largest = max((len(indices) for indices in batches), default=0)
        free: queue.Queue[_Buffer] = queue.Queue()
        filled: queue.Queue[_Buffer | BaseException] = queue.Queue()
        for _ in range(BATCHES_AHEAD):
            free.put(_Buffer(torch.empty((largest, *self._images.shape[1:]), dtype=torch.uint8, pin_memory=True)))
        stop = threading.Event()
        thread = threading.Thread(
            target=self._gather, args=(batches, free, filled, stop), name="image-feed", daemon=True
        )
        thread.start()
        try:
            for _ in batches:
                started = time.perf_counter()
                buffer = filled.get()
                self.wait_s += time.perf_counter() - started
                if isinstance(buffer, BaseException):
                    raise buffer
                images = buffer.pinned[: buffer.count].to(self.device, non_blocking=True)
                buffer.copied.record()
                free.put(buffer)
                yield images
        finally:
            stop.set()
            free.put(_Buffer(torch.empty(0)))  # wakes the thread if it waits
            thread.join()

    def _gather(
        self,
        batches: Sequence[Tensor],
        free: queue.Queue[_Buffer],
        filled: queue.Queue[_Buffer | BaseException],
        stop: threading.Event,
    ) -> None:
        images = self._images.numpy()
        try:
            for indices in batches:
                buffer = free.get()
                if stop.is_set():
                    return
                buffer.copied.synchronize()  # the device may still be reading what this buffer held before
                # Not torch.index_select: on a machine of many cores its threads get in each other's way and in the
                # training loop's.
                np.take(images, indices.numpy(), axis=0, out=buffer.pinned[: len(indices)].numpy(), mode="clip")
                buffer.count = len(indices)
                filled.put(buffer)
        except BaseException as error:
            filled.put(error)


class _Buffer:
    """Pinned memory for one batch, and the event after which the device has read it."""

    def __init__(self, pinned: Tensor) -> None:
        self.pinned, self.count = pinned, 0
        self.copied = torch.cuda.Event()
