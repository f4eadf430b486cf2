"""Depthwise convolutions of half precision on a GPU, without cuDNN's preparation.

cuDNN builds a kernel for each shape of each layer, and for each direction: 150 ms for each, 8 to 10 s for EfficientNet-B0 at one batch size, in every
process and for every batch size anew (H200). Those of `depthwise.cu` serve all shapes, and take two seconds to compile.
B: samples, C: channels, H, W: height and width, K: side of the kernel.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tune_cropshield.training.cuda_source import CudaSource, KernelsUnavailable

THREADS = 256
MOST_ALONG_CHANNELS = 32  # of a block's threads: a warp then reads 128 or 256 bytes in a row
SEGMENT = 16  # results of a row that a thread takes into its part of the weights' gradient at a time
BLOCKS_PER_PROCESSOR = 4
LANES = 8  # of a block that adds up the blocks' parts of a gradient
STRIPS = {1: 4, 2: 2}  # stride -> results of a row that a thread computes
PAIR = 2  # neighbours in a row of the input whose gradients a thread computes at stride 2
MACROS = {"THREADS": THREADS, "MOST_ALONG": MOST_ALONG_CHANNELS, "STRIP_1": STRIPS[1], "STRIP_2": STRIPS[2], "LANES": LANES}


class DepthwiseConv2d(nn.Conv2d):
    """A convolution as `takes` says, with the same parameters and, but for the order of its fp32 sums, the same results as nn.Conv2d."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns (B, C, H, W) in autocast's type and channels_last. Outside a GPU's autocast it is nn.Conv2d itself."""
        if not (input.is_cuda and torch.is_autocast_enabled("cuda")):
            return super().forward(input)
        dtype = torch.get_autocast_dtype("cuda")
        images_BCHW: Tensor = _Convolution.apply(input.to(dtype), self.weight.to(dtype), self.stride[0])
        return images_BCHW


def use_own_kernels(model: nn.Module, kernels: CudaSource) -> str | None:
    """Has the layers of `model`, which lies on a GPU, that can be computed by DepthwiseConv2d; their parameters stay where they are.

    kernels: the source for autocast's type. Returns why none are although some could be, else None.
    """
    layers = [layer for layer in model.modules() if type(layer) is nn.Conv2d and takes(layer)]
    if layers:
        try:
            kernels.prepare(layers[0].weight.device)
        except KernelsUnavailable as error:
            return str(error)
    for layer in layers:
        layer.__class__ = DepthwiseConv2d
    return None


def takes(layer: nn.Conv2d) -> bool:
    """Tells whether there are kernels for `layer`: depthwise, 3 x 3 or 5 x 5, stride 1 or 2, padded to keep its size, channels in fours, no bias."""
    K = layer.kernel_size[0]
    return (
        layer.groups == layer.in_channels == layer.out_channels
        and layer.in_channels % 4 == 0
        and K in (3, 5)
        and layer.kernel_size == (K, K)
        and layer.stride in ((1, 1), (2, 2))
        and layer.padding == (K // 2, K // 2)
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and layer.bias is None
    )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, images_BCHW: Tensor, weight_C1KK: Tensor, stride: int) -> Tensor:
        images_BCHW, weight_C1KK = _channels_last(images_BCHW), weight_C1KK.contiguous()
        context.save_for_backward(images_BCHW, weight_C1KK)
        context.stride = stride
        return _kernels_for(images_BCHW).convolved(images_BCHW, weight_C1KK, stride)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient_BCHW: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        images_BCHW, weight_C1KK = context.saved_tensors
        gradient_BCHW, kernels = _channels_last(gradient_BCHW), _kernels_for(images_BCHW)
        needs_images, needs_weight, _ = context.needs_input_grad
        return (
            kernels.input_gradient(gradient_BCHW, weight_C1KK, context.stride, images_BCHW.shape) if needs_images else None,
            kernels.weight_gradient(images_BCHW, gradient_BCHW, context.stride, weight_C1KK) if needs_weight else None,
            None,
        )


class Launcher(Protocol):
    """Runs a kernel of depthwise.cu."""

    def launch(self, name: str, grid: tuple[int, int], block: tuple[int, int], *arguments: Tensor | int) -> None:
        """Runs kernel `name`; tensors are passed as their places in memory."""


class DepthwiseKernels:
    """The convolution and its gradients. All images are channels_last and of one half-precision type, which is the weights' too."""

    def __init__(self, launcher: Launcher, processors: int) -> None:
        """processors: of the GPU (its streaming multiprocessors)."""
        self._launch, self._processors = launcher.launch, processors

    def convolved(self, images_BCHW: Tensor, weight_C1KK: Tensor, stride: int) -> Tensor:
        """Returns the convolution."""
        B, C, H, W = images_BCHW.shape
        K = weight_C1KK.shape[-1]
        results_BCHW = _empty(images_BCHW, (B, C, (H - 1) // stride + 1, (W - 1) // stride + 1))
        self._run_along_rows(f"forward_{K}_{stride}", images_BCHW, weight_C1KK, results_BCHW, images_BCHW, results_BCHW, STRIPS[stride])
        return results_BCHW

    def input_gradient(self, gradient_BCHW: Tensor, weight_C1KK: Tensor, stride: int, shape: torch.Size) -> Tensor:
        """Returns the gradient with respect to images of `shape`, from that with respect to their convolution."""
        name, strip = f"input_{weight_C1KK.shape[-1]}_{stride}", STRIPS[1] if stride == 1 else PAIR
        images_BCHW = _empty(gradient_BCHW, shape)
        self._run_along_rows(name, gradient_BCHW, weight_C1KK, images_BCHW, images_BCHW, gradient_BCHW, strip)
        return images_BCHW

    def weight_gradient(self, images_BCHW: Tensor, gradient_BCHW: Tensor, stride: int, weight_C1KK: Tensor) -> Tensor:
        """Returns the gradient with respect to the weights: the same bits each time."""
        B, C, H, W = images_BCHW.shape
        K = weight_C1KK.shape[-1]
        HO, WO = gradient_BCHW.shape[2:]
        pairs = C // 2
        along = _largest_divisor(pairs)
        rows = THREADS // along
        per_row = -(-WO // SEGMENT)
        segments = B * HO * per_row
        wanted = max(1, BLOCKS_PER_PROCESSOR * self._processors // (pairs // along))
        blocks = min(-(-segments // rows), wanted)
        parts = torch.empty((blocks, K * K, C), device=images_BCHW.device)
        sizes = (H, W, HO, WO, C, -(-WO // per_row), segments)
        self._launch(f"weight_{K}_{stride}", (blocks, pairs // along), (along, rows), images_BCHW, gradient_BCHW, parts, *sizes)
        summed_C1KK = torch.empty_like(weight_C1KK)  # with its strides too: sums of many gradients take a kernel each where strides differ
        self._launch("weight_sum", (-(-K * K * C // 32), 1), (32, LANES), parts, summed_C1KK, blocks, C, K * K)
        return summed_C1KK

    def _run_along_rows(
        self, name: str, read: Tensor, weight_C1KK: Tensor, written: Tensor, images_BCHW: Tensor, results_BCHW: Tensor, strip: int
    ) -> None:
        """Runs a kernel whose threads write `strip` neighbours of a row each. images, results: what the convolution itself goes from and to."""
        B, C, height, width = written.shape
        quads = C // 4
        along = _largest_divisor(quads)
        rows = THREADS // along
        strips = B * height * -(-width // strip)
        sizes = (*images_BCHW.shape[2:], *results_BCHW.shape[2:], C, strips)
        self._launch(name, (-(-strips // rows), quads // along), (along, rows), read, weight_C1KK, written, *sizes)


@functools.cache
def source(dtype: torch.dtype) -> CudaSource:
    """Returns the kernels' source for fp16 or bf16."""
    text = files("tune_cropshield.training").joinpath("depthwise.cu").read_text(encoding="utf-8")
    return CudaSource(text, ["--std=c++17", *macros(dtype)])


def macros(dtype: torch.dtype) -> list[str]:
    """Returns what the source is to be told on a compiler's command line."""
    return [f"-D{name}={value}" for name, value in {"BFLOAT16": int(dtype == torch.bfloat16), **MACROS}.items()]


def _kernels_for(images: Tensor) -> DepthwiseKernels:
    return _kernels(images.dtype, images.device)


@functools.cache
def _kernels(dtype: torch.dtype, device: torch.device) -> DepthwiseKernels:
    return DepthwiseKernels(source(dtype), torch.cuda.get_device_properties(device).multi_processor_count)


def _channels_last(images_BCHW: Tensor) -> Tensor:
    return images_BCHW.contiguous(memory_format=torch.channels_last)


def _empty(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


@functools.cache
def _largest_divisor(number: int) -> int:
    """Returns the largest divisor that is at most MOST_ALONG_CHANNELS."""
    return next(divisor for divisor in range(min(number, MOST_ALONG_CHANNELS), 0, -1) if number % divisor == 0)
