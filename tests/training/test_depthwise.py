"""Our depthwise kernels: what they compute, run on the CPU, and that they compile for every card. On a GPU: tests/gpu/test_depthwise_on_gpu.py."""

from __future__ import annotations

import copy
import pickle
import shutil
from typing import Any

import pytest
import torch
from cuda_on_cpu import KernelsOnCpu
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from tune_cropshield.config import TrialConfig
from tune_cropshield.memory.oom import is_dead_context, is_out_of_memory
from tune_cropshield.training import cuda_source
from tune_cropshield.training.build import build_trainer
from tune_cropshield.training.cuda_source import CudaSource, KernelsUnavailable
from tune_cropshield.training.depthwise import DepthwiseConv2d, DepthwiseKernels, source, takes, use_own_kernels
from tune_cropshield.training.models import build_model
from tune_cropshield.training.trainer import Trainer

HALF = 2.0**-11  # what rounding to fp16 may change, of 1


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> DepthwiseKernels:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    return DepthwiseKernels(KernelsOnCpu(tmp_path_factory.mktemp("kernels")), processors=1)


@pytest.mark.parametrize(
    ("shape", "K", "stride"),
    [
        ((2, 16, 9, 9), 3, 1),
        ((2, 24, 9, 11), 3, 2),  # both sides odd
        ((2, 16, 8, 8), 3, 2),
        ((2, 8, 10, 7), 5, 1),
        ((1, 16, 10, 10), 5, 2),
        ((1, 8, 13, 40), 5, 2),  # a row in several segments
        ((2, 72, 5, 5), 5, 1),  # 18 quads of channels
        ((1, 8, 3, 35), 3, 1),
        ((1, 4, 1, 1), 5, 1),  # all but the middle is padding
        ((1, 256, 2, 2), 3, 1),  # several blocks along the channels
        ((1, 256, 2, 3), 5, 2),
        ((1, 148, 2, 3), 3, 2),  # 37 quads: a block for each
    ],
    ids=str,
)
def test_kernels_compute_the_convolution_and_its_gradients(kernels: DepthwiseKernels, shape: tuple[int, int, int, int], K: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(shape, generator=generator).half().to(memory_format=torch.channels_last)
    weight = torch.randn((shape[1], 1, K, K), generator=generator).half()
    exact_images, exact_weight = images.float().requires_grad_(), weight.float().requires_grad_()
    exact = F.conv2d(exact_images, exact_weight, stride=stride, padding=K // 2, groups=shape[1])
    gradient = torch.randn(exact.shape, generator=generator).half().to(memory_format=torch.channels_last)
    exact.backward(gradient.float())
    assert exact_images.grad is not None and exact_weight.grad is not None

    results = kernels.convolved(images, weight, stride)
    back = kernels.input_gradient(gradient, weight, stride, images.shape)
    learned = kernels.weight_gradient(images, gradient, stride, weight)
    for ours, theirs in ((results, exact.detach()), (back, exact_images.grad), (learned, exact_weight.grad)):
        assert ours.shape == theirs.shape and ours.dtype == torch.float16
        torch.testing.assert_close(ours.float(), theirs, rtol=1.01 * HALF, atol=1e-4)


@pytest.mark.parametrize(("architecture", "dtype"), [((7, 5), torch.float16), ((8, 9), torch.bfloat16)], ids=["Turing", "Ada"])
def test_the_source_compiles_for_old_cards_and_new(architecture: tuple[int, int], dtype: torch.dtype) -> None:
    try:
        binary = source(dtype).compile(architecture)
    except KernelsUnavailable as error:
        assert "cannot be loaded" in str(error), error
        pytest.skip("this PyTorch brings no compiler for CUDA")
    assert binary[:4] == b"\x7fELF" and b"weight_5_2" in binary


def test_source_that_does_not_compile_is_told_each_time() -> None:
    faulty = CudaSource("no program", [])
    for _ in range(2):
        with pytest.raises(KernelsUnavailable, match="the CUDA compiler"):
            faulty.compile((8, 0))


def test_only_layers_that_the_kernels_compute_are_taken() -> None:
    good = {"in_channels": 8, "out_channels": 8, "kernel_size": 3, "padding": 1, "groups": 8, "bias": False}
    assert takes(nn.Conv2d(**good)) and takes(nn.Conv2d(**good | {"stride": 2}))
    assert takes(nn.Conv2d(**good | {"kernel_size": 5, "padding": 2}))
    for other in (
        {"bias": True},
        {"groups": 4},
        {"out_channels": 16},
        {"in_channels": 6, "out_channels": 6, "groups": 6},
        {"stride": 3},
        {"stride": (1, 2)},
        {"padding": 0},
        {"padding": "same"},
        {"kernel_size": 7, "padding": 3},
        {"kernel_size": (3, 5), "padding": (1, 2)},
        {"dilation": 2},
        {"padding_mode": "reflect"},
    ):
        assert not takes(nn.Conv2d(**good | other)), other


def test_off_a_gpu_the_layer_is_a_plain_convolution_with_the_same_parameters() -> None:
    model = build_model("efficientnet_b0", 3)
    names = list(model.state_dict())
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and takes(layer)]
    images = torch.randn(2, 32, 16, 16)
    expected = layers[0](images)
    for layer in layers:
        layer.__class__ = DepthwiseConv2d
    assert len(layers) == 16 and list(model.state_dict()) == names
    assert torch.equal(layers[0](images), expected)


def test_a_network_whose_kernels_cannot_be_had_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False))
    assert str(use_own_kernels(model, CudaSource("no program", []))).startswith("the CUDA compiler")
    assert type(model[0]) is nn.Conv2d


def test_a_converted_layer_is_copied_pickled_and_called_with_other_weights() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    layer.__class__ = DepthwiseConv2d
    images = torch.randn(2, 8, 5, 5)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(again) is DepthwiseConv2d and torch.equal(again(images), layer(images))
    assert torch.equal(functional_call(layer, {"weight": torch.zeros(8, 1, 3, 3)}, (images,)), torch.zeros(2, 8, 5, 5))


class _Driver:
    """Answers as CUDA's driver does after a kernel has failed."""

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = b"an illegal memory access was encountered"
        return 0


def test_what_cuda_reports_at_a_launch_is_told_in_pytorchs_words() -> None:
    with pytest.raises(RuntimeError) as told:
        cuda_source._raise_cuda_error(700, "forward_3_1", _Driver())
    assert str(told.value) == "CUDA error: an illegal memory access was encountered (code 700, at kernel forward_3_1)"
    assert is_dead_context(told.value)
    with pytest.raises(RuntimeError) as told:
        cuda_source._raise_cuda_error(2, "forward_3_1", _OutOfMemory())
    assert is_out_of_memory(told.value)


class _OutOfMemory(_Driver):
    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = b"out of memory"
        return 0


def test_a_trainer_says_why_it_does_without_them() -> None:
    trial = TrialConfig(model="tiny_cnn", image_size=32, effective_batch=8, micro_batch=8, accumulation=1, epochs=1)
    trainer = build_trainer(trial, 3, torch.zeros(8, dtype=torch.int64), torch.device("cpu"))
    assert trainer.why_slow == {}
    without = Trainer(trainer.step, 3, None, "the CUDA compiler cannot be loaded")
    assert without.why_slow == {"no own kernels": "depthwise convolutions are left to cuDNN: the CUDA compiler cannot be loaded"}
