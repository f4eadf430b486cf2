"""fp16 with a gradient scaler, bf16, or fp32: one code path for GPUs and CPUs."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from tune_cropshield.config.settings import Precision, PrecisionChoice

DTYPES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

# Every training starts with this scale, PyTorch's own. Where it is too high, that costs a few skipped updates. To take
# an earlier trial's last scale would save them, and make a trial's numbers depend on what ran before it.
INITIAL_SCALE = 65536.0


def resolve_precision(wanted: PrecisionChoice, device: torch.device) -> Precision:
    """Returns the precision that "auto" stands for on `device`: fp16 on a GPU, fp32 on a CPU.

    bf16 slows a CPU's convolutions down where the processor has no bf16 matrix unit.
    """
    if wanted != "auto":
        return wanted
    return "fp16" if device.type == "cuda" else "fp32"


def wider_precision(device: torch.device) -> Precision:
    """Returns what to train in where fp16's range does not do: bf16 on a GPU that computes in it, else fp32."""
    computes_in_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if computes_in_bf16 else "fp32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Returns the context in which forward passes run; it does nothing in fp32.

    Only matrix products and convolutions change their type; batch norms follow their input (with fp32 statistics
    inside), losses are fp32. Source: https://pytorch.org/docs/stable/amp.html
    """
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


def gradient_scaler(precision: Precision, device: torch.device, scale: float = INITIAL_SCALE) -> torch.amp.GradScaler:
    """Returns the scaler that keeps small fp16 gradients from becoming zero.

    It is disabled in bf16 and fp32, whose range is fp32's.

    It multiplies the loss, divides the gradients and skips updates with inf or NaN in them. It clips nothing.
    """
    return torch.amp.GradScaler(device.type, init_scale=scale, enabled=precision == "fp16")
