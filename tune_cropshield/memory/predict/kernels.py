"""Which operators take scratch space on a GPU, and what it follows from (see scratch.py).

B: images, C: channels, H, W: height and width, K: a convolution's outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tune_cropshield.memory.predict import torch_private
from tune_cropshield.memory.predict.scratch import Scratch

SUMS = (torch.ops.aten.sum.dim_IntList, torch.ops.aten.mean.dim)
# These copy an argument first that does not lie in order.
WANT_CONTIGUOUS = (
    torch.ops.aten.native_layer_norm.default,
    torch.ops.aten.native_layer_norm_backward.default,
    torch_private.softmax_backward,
)
# The first of them makes cuBLAS keep a workspace.
MATRIX_PRODUCTS = tuple(
    getattr(torch.ops.aten, name).default for name in ("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot")
)
# A depthwise convolution's weight gradient: so many fp32 copies of it for each image.
DEPTHWISE_PARTS_PER_IMAGE = 8
LARGEST_TILE = 128  # rows and columns of a weight gradient that a multiprocessor sums at a time


def scratch_of(
    operator: object, args: Sequence[Any], outputs: Sequence[Any], channels_last: bool
) -> tuple[Scratch, ...]:
    """Returns what `operator` takes beside `outputs` when it is called with `args` on a GPU: one after the other.

    channels_last: the layout of weights and images. Strides of four-dimensional meta tensors are not looked at: some
    operators lose the layout on the meta device, and keep it on a GPU.
    """
    if operator == torch.ops.aten.convolution.default:
        images, weight, stride, groups = args[0], args[1], args[3], args[8]
        return (Scratch(_copied_bytes(images, weight, outputs[0], stride, groups, channels_last, backward=False)),)
    if operator == torch.ops.aten.convolution_backward.default:
        return _convolution_backward(args, channels_last)
    if operator in SUMS:
        return (_sum(args[0], args[1], channels_last),)
    if operator in WANT_CONTIGUOUS:
        tensors = [value for value in args if isinstance(value, Tensor)]
        return (Scratch(sum(tensor.nbytes for tensor in tensors if not tensor.is_contiguous())),)
    if operator == torch.ops.aten.roll.default and len(args[1]) > 1:
        return (Scratch(args[0].nbytes),)  # one dimension after the other
    if operator == torch_private.fused_attention_backward:
        # flash attention sums the queries' gradient in fp32, padded to 128 rows and 32 columns
        batch, heads, rows, columns = args[1].shape
        return (Scratch(batch * heads * (-(-rows // 128) * 128) * (-(-columns // 32) * 32) * 4),)
    return ()


def _convolution_backward(args: Sequence[Any], channels_last: bool) -> tuple[Scratch, ...]:
    gradient_BKHW, images_BCHW, weight, stride, groups = args[0], args[1], args[2], args[4], args[9]
    wants_images, wants_weight, wants_bias = args[10]
    copied = _copied_bytes(images_BCHW, weight, gradient_BKHW, stride, groups, channels_last, backward=True)
    outputs_K = gradient_BKHW.shape[1]
    pixels = gradient_BKHW.numel() // outputs_K
    scratch = []
    if wants_images:
        scratch.append(Scratch(copied))
    if wants_weight and _is_depthwise(images_BCHW, groups):
        parts = DEPTHWISE_PARTS_PER_IMAGE * len(images_BCHW) * weight.numel() * 4
        scratch.append(Scratch(copied + (parts if channels_last else 0)))
    elif wants_weight:
        tile = min(outputs_K, LARGEST_TILE) * min(weight[0].numel(), LARGEST_TILE)
        scratch.append(Scratch(copied, gradient_pixels=pixels, gradient_elements=weight.numel(), gradient_tile=tile))
    if wants_bias and channels_last:
        scratch.append(Scratch(sum_rows=pixels, sum_columns=outputs_K))
    return tuple(scratch)


def _copied_bytes(
    images_BCHW: Tensor,
    weight: Tensor,
    result_BKHW: Tensor,
    stride: Sequence[int],
    groups: int,
    channels_last: bool,
    backward: bool,
) -> int:
    """Returns the bytes of images, result and weights copied to cuDNN's own layout.

    Three channels are read as they are by kernels of up to 3 x 3; larger ones copy them, in fp32 whatever the layout.
    Groups whose width is no power of two are copied to the next wider ones.
    """
    kernel, width = weight.shape[2:].numel(), weight.shape[1]
    of_colours = images_BCHW.shape[1] == 3
    num_bytes = images_BCHW.nbytes + result_BKHW.nbytes + weight.nbytes
    if _is_depthwise(images_BCHW, groups):
        return 0
    if not channels_last:
        pointwise = kernel == 1 and set(stride) == {1}
        return 0 if pointwise or (of_colours and kernel <= 9) else num_bytes
    if groups > 1:
        wider = 1 << (width - 1).bit_length()
        few = not backward and groups <= 4 and width >= 16
        return num_bytes * wider // width if wider > width or few else 0
    return num_bytes if of_colours and kernel > 9 and backward and images_BCHW.dtype == torch.float32 else 0


def _is_depthwise(images_BCHW: Tensor, groups: int) -> bool:
    return groups == images_BCHW.shape[1] and groups > 1


def _sum(values: Tensor, dims: Sequence[int] | None, channels_last: bool) -> Scratch:
    """Returns the buffer of a sum of `values` over `dims`: none where it runs along memory, or over everything."""
    kept = set(range(values.ndim)) - {dim % values.ndim for dim in dims or range(values.ndim)}
    last_in_memory = 1 if channels_last and values.ndim == 4 else values.ndim - 1
    if last_in_memory not in kept:
        return Scratch()
    columns = math.prod(values.shape[dim] for dim in kept)
    return Scratch(sum_rows=values.numel() // max(columns, 1), sum_columns=columns)
