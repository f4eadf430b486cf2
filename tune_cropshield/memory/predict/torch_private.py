"""Undocumented parts of PyTorch: all that tracing a training step stands on.

Everything is looked up when this module is imported, which happens when an estimate is made and at no other time: where
a part is missing, `estimate_memory` says so (EstimateUnavailable), and nothing else fails. Tried with PyTorch 2.11 and
2.15; tests/memory/test_predict_torch_private.py names the part that has moved.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Sees every operator that PyTorch's dispatcher runs, also those that autograd runs in the backward pass. Documented
# modes (TorchFunctionMode) see only what Python calls.
DispatchMode = TorchDispatchMode

# The CPU's fused attention: it keeps for the backward pass what CUDA's flash and memory-efficient attention keep, and
# runs on the meta device, which those do not.
fused_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
fused_attention_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default

# softmax with a flag for "read fp16, write fp32", which CUDA does in one kernel.
fused_softmax = torch.ops.aten._softmax.default
fused_log_softmax = torch.ops.aten._log_softmax.default
softmax_backward = torch.ops.aten._softmax_backward_data.default


# How often a tensor and its storage are held while an operator runs on it under a DispatchMode, when autograd alone
# holds them.
_HELD_BY_AUTOGRAD = (4, 2)
_tensor_holders: Callable[[torch.Tensor], int] = torch.Tensor._use_count
_storage_holders: Callable[[int], int] = torch._C._storage_Use_Count


def sums_in_place(operator: object, gradient: torch.Tensor) -> bool:
    """Returns whether autograd, which sums the gradients of a tensor that is used twice, does so in `gradient`.

    It does where nobody else holds the gradient, but never for meta tensors (`can_accumulate_inplace` in
    torch/csrc/autograd/input_buffer.cpp): there the sum is an operator that returns a new tensor.
    """
    return (
        operator == torch.ops.aten.add.Tensor
        and not torch.is_grad_enabled()
        and (_tensor_holders(gradient), _storage_holders(gradient.untyped_storage()._cdata)) == _HELD_BY_AUTOGRAD
    )


# A dispatch key above autograd that no backend uses any more (Graphcore left), and that can be switched on for one
# thread. The keys of CUDA's own autocast are taken by PyTorch's own kernels.
_KEY = "AutocastIPU"
_DEVICE_OF_KEY = "ipu"
_key = getattr(torch._C.DispatchKey, _KEY)
_include_key, _exclude_key = torch._C._IncludeDispatchKeyGuard, torch._C._ExcludeDispatchKeyGuard
# Without it the kernels would stay until Python frees the library.
_destroy_library: Callable[[torch.library.Library], None] = torch.library.Library._destroy

_only_one_registration = threading.Lock()  # the dispatcher takes one kernel per operator and key


@contextmanager
def replaced_operators(kernels: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Inside, this thread's calls of the named aten operators go to `kernels`.

    Whoever makes the calls: torch.nn.functional and C++ too. What a kernel calls itself is not replaced.

    Other threads, and real work on a GPU in this process, are not touched. One thread at a time: a second one waits.

    Args:
        kernels: an operator's name, with its overload where that is not the default ("softmax.int") -> what runs in
            its place, with the operator's own arguments.
    """
    keys = torch._C.DispatchKeySet(_key)

    def without_the_key(kernel: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with _exclude_key(keys):
                return kernel(*args, **kwargs)

        return run

    with _only_one_registration:
        library = torch.library.Library("aten", "IMPL")
        everything_else = torch.library.Library("_", "IMPL")
        was_enabled = torch.is_autocast_enabled(_DEVICE_OF_KEY)
        try:
            everything_else.fallback(torch.library.fallthrough_kernel, _KEY)
            for name, kernel in kernels.items():
                library.impl(name, without_the_key(kernel), _KEY)
            torch.set_autocast_enabled(_DEVICE_OF_KEY, True)
            with _include_key(_key):
                yield
        finally:
            torch.set_autocast_enabled(_DEVICE_OF_KEY, was_enabled)
            _destroy_library(library)
            _destroy_library(everything_else)
