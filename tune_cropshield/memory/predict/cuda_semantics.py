"""What autocast, attention and dropout do on a CUDA GPU, for tensors that have no device at all.

A model traced on PyTorch's `meta` device computes nothing, but meta tensors know no autocast, and they take the CPU's
way through attention and dropout, which keeps other tensors for the backward pass. `cuda_semantics` puts CUDA's rules
in their place (how: see torch_private.replaced_operators).

Tables: https://docs.pytorch.org/docs/stable/amp.html#cuda-op-specific-behavior
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tune_cropshield.config.settings import Precision
from tune_cropshield.memory.predict import torch_private

HALF_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

# fmt: off
IN_HALF_PRECISION = (
    "conv1d", "conv1d.padding", "conv2d", "conv2d.padding", "conv3d", "conv3d.padding", "conv_transpose1d",
    "conv_transpose2d.input", "conv_transpose3d.input", "convolution", "linear", "matmul", "mm", "mv", "bmm", "baddbmm",
    "addmm", "addmv", "addbmm", "addr", "chain_matmul", "linalg_multi_dot", "linalg_vecdot", "prelu",
)
IN_FP32 = (
    "layer_norm", "native_layer_norm", "group_norm", "cosine_similarity", "logsumexp", "cdist", "dist", "renorm",
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "sinh",
    "softplus", "tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "nll_loss", "kl_div", "l1_loss",
    "mse_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy_with_logits",
)
ACCUMULATED_IN_FP32 = (
    "sum", "sum.dim_IntList", "prod", "prod.dim_int", "cumsum", "cumprod", "linalg_vector_norm", "linalg_matrix_norm",
)
# fmt: on


class CastCache:
    """Half-precision copies of the weights.

    One copy of each serves until autocast ends, as on CUDA; activations are cast at every use.
    """

    def __init__(self, half: torch.dtype) -> None:
        self.half = half
        self.copies: dict[int, tuple[Tensor, Tensor]] = {}

    def num_bytes(self) -> int:
        return sum(copy.nbytes for _, copy in self.copies.values())

    def clear(self) -> None:
        """Drops the copies, as leaving the outermost autocast does; the backward pass still holds those it needs."""
        self.copies.clear()

    def cast(self, value: Tensor) -> Tensor:
        """Returns `value` in half precision; what is no fp32 or other half-precision number stays as it is."""
        if not value.is_floating_point() or value.dtype in (self.half, torch.float64):
            return value
        if not (value.dtype == torch.float32 and value.is_leaf and value.requires_grad):
            return value.to(self.half)
        if id(value) not in self.copies:
            self.copies[id(value)] = (value, value.to(self.half))
        return self.copies[id(value)][1]


@contextmanager
def cuda_semantics(precision: Precision) -> Iterator[CastCache]:
    """Inside, meta tensors go through autocast, attention and dropout as CUDA tensors would.

    Yields the cached casts of the weights.

    The forward pass belongs inside, the backward pass outside. One thread at a time: a second one waits.
    """
    casts = CastCache(HALF_TYPES.get(precision, torch.float32))
    with torch_private.replaced_operators(_kernels(precision, casts)):
        try:
            yield casts
        finally:
            casts.clear()


def _kernels(precision: Precision, casts: CastCache) -> dict[str, Callable[..., Any]]:
    """Returns operator name -> what CUDA does in its place."""
    if precision == "fp32":
        return {"dropout": _dropout, "scaled_dot_product_attention": _attention}
    return {
        "dropout": _dropout,
        "scaled_dot_product_attention": _after(casts.cast, _attention),
        "softmax.int": _softmax(torch_private.fused_softmax, torch.ops.aten.softmax.int),
        "log_softmax.int": _softmax(torch_private.fused_log_softmax, torch.ops.aten.log_softmax.int),
        **{name: _after(casts.cast, _operator(name)) for name in IN_HALF_PRECISION},
        **{name: _after(_to_fp32, _operator(name)) for name in IN_FP32},
        **{name: _accumulated_in_fp32(_operator(name)) for name in ACCUMULATED_IN_FP32},
    }


def _operator(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _to_fp32(value: Tensor) -> Tensor:
    return value.float() if value.dtype in HALF_TYPES.values() else value


def _after(cast: Callable[[Tensor], Tensor], operator: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `operator`, run on arguments whose tensors, also those in lists, went through `cast`."""

    def cast_all(value: Any) -> Any:
        if isinstance(value, Tensor):
            return cast(value)
        return [cast_all(part) for part in value] if isinstance(value, list | tuple) else value

    return lambda *args, **kwargs: operator(
        *(cast_all(value) for value in args), **{name: cast_all(value) for name, value in kwargs.items()}
    )


def _accumulated_in_fp32(operator: Callable[..., Any]) -> Callable[..., Any]:
    def run(values: Tensor, *args: Any, **kwargs: Any) -> Any:
        if values.dtype in HALF_TYPES.values() and kwargs.get("dtype") is None:
            kwargs["dtype"] = torch.float32
        return operator(values, *args, **kwargs)

    return run


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Fused attention: keeps q, k, v, the output and one logsumexp a row, never the attention matrix.

    The CPU's fused operator stands for CUDA's flash and memory-efficient ones, which keep the same; its dropout is left
    at 0, since CUDA's keeps a seed and no mask.
    """
    output: Tensor = torch_private.fused_attention(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[
        0
    ]
    return output


def _dropout(images: Tensor, p: float, train: bool) -> Tensor:
    """CUDA's fused dropout keeps a mask of one byte an element, not a factor in the activations' type."""
    if not train or p in (0.0, 1.0):
        return torch.ops.aten.dropout(images, p, train)  # type: ignore[no-any-return]
    return torch.ops.aten.native_dropout(images, p, True)[0]  # type: ignore[no-any-return]


def _softmax(fused: Any, whole: Any) -> Callable[..., Tensor]:
    """fp16 is read and fp32 written by one CUDA kernel; bf16 is first copied to fp32."""

    def run(values: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
        if dtype is None and values.dtype == torch.float16:
            return fused(values, dim, True)  # type: ignore[no-any-return]
        return whole(values, dim, torch.float32 if dtype is None and values.dtype == torch.bfloat16 else dtype)  # type: ignore[no-any-return]

    return run
