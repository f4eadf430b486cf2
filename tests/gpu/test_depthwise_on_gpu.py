"""Our depthwise kernels against cuDNN's. These tests need a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tune_cropshield.config import TrialConfig
from tune_cropshield.training.build import build_trainer
from tune_cropshield.training.depthwise import DepthwiseConv2d

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("shape", "K", "stride"),
    [
        ((8, 32, 80, 80), 3, 1),
        ((8, 96, 81, 79), 3, 2),
        ((4, 144, 40, 40), 5, 2),
        ((4, 672, 10, 10), 5, 1),
        ((2, 1152, 5, 5), 3, 1),
        ((1, 4, 1, 1), 5, 1),
    ],
    ids=str,
)
def test_a_layer_computes_what_cudnn_computes(shape: tuple[int, int, int, int], K: int, stride: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(shape[1], shape[1], K, stride, K // 2, groups=shape[1], bias=False, device="cuda")
    ours = nn.Conv2d(shape[1], shape[1], K, stride, K // 2, groups=shape[1], bias=False, device="cuda")
    ours.load_state_dict(plain.state_dict())
    ours.__class__ = DepthwiseConv2d
    images = torch.randn(shape, device="cuda").to(memory_format=torch.channels_last)
    found = []
    for layer in (ours, plain):
        seen = images.clone().requires_grad_()
        with torch.autocast("cuda", dtype):
            results = layer(seen)
        assert results.dtype == dtype and results.is_contiguous(memory_format=torch.channels_last)
        results.float().square().sum().backward()
        results = results.detach()
        assert seen.grad is not None and layer.weight.grad is not None
        found.append((results.float(), seen.grad, layer.weight.grad))
    for mine, theirs in zip(*found, strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < (2e-3 if dtype == torch.float16 else 1e-2)


def test_weight_gradients_repeat_to_the_last_bit() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(144, 144, 5, 1, 2, groups=144, bias=False, device="cuda")
    layer.__class__ = DepthwiseConv2d
    images = torch.randn(16, 144, 40, 40, device="cuda")
    found = []
    for _ in range(3):
        layer.weight.grad = None
        with torch.autocast("cuda", torch.float16):
            layer(images).float().square().mean().backward()
        assert layer.weight.grad is not None
        found.append(layer.weight.grad)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_captured_half_precision_steps_use_them_and_others_do_not() -> None:
    def layers(**settings: object) -> int:
        trial = TrialConfig(model="mobilenet_v2", image_size=32, effective_batch=8, micro_batch=8, accumulation=1, epochs=1, **settings)
        trainer = build_trainer(trial, 3, torch.zeros(8, dtype=torch.int64), torch.device("cuda"))
        assert trainer.why_slow == {}
        return sum(isinstance(layer, DepthwiseConv2d) for layer in trainer.step.model.modules())

    assert layers() == layers(precision="bf16") == 17
    assert layers(precision="fp32") == layers(cuda_graphs=False) == layers(channels_last=False) == 0


def test_outside_autocast_the_layer_is_exact_in_fp32() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False, device="cuda")
    layer.__class__ = DepthwiseConv2d
    images = torch.randn(2, 8, 9, 9, device="cuda")
    assert torch.equal(layer(images), F.conv2d(images, layer.weight, padding=1, groups=8))
