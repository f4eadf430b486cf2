"""The memory estimate against a real GPU (one H200, torch 2.11, 224 px, 22 classes, fused AdamW), and its behaviour
elsewhere.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tune_cropshield.errors import ConfigError, EstimateUnavailable, RunFailure
from tune_cropshield.memory.predict.allocator import CachingAllocator
from tune_cropshield.memory.predict.cuda_semantics import cuda_semantics
from tune_cropshield.memory.predict.estimate import MemoryEstimate, estimate_memory
from tune_cropshield.memory.predict.events import FREED
from tune_cropshield.memory.predict.scratch import row_sum_buffer
from tune_cropshield.memory.predict.trace import meta_copy, trace_window

MIB = 2**20

# Networks that no constant of the estimate was set by, fp16, channels_last (results/memory_estimate_h200_2026-11).
# model, image size, micro_batch, accumulation, max_allocated_mib, max_reserved_mib
HELD_OUT = [
    ("resnet34", 128, 16, 1, 468, 502),
    ("resnet34", 256, 64, 1, 1765, 1996),
    ("resnet34", 224, 32, 2, 995, 1026),
    ("regnet_y_400mf", 128, 16, 1, 205, 232),
    ("regnet_y_400mf", 256, 64, 1, 1532, 1724),
    ("regnet_y_400mf", 224, 32, 2, 673, 720),
    ("shufflenet_v2_x1_0", 128, 16, 1, 138, 158),
    ("shufflenet_v2_x1_0", 256, 64, 1, 986, 1132),
    ("shufflenet_v2_x1_0", 224, 32, 2, 440, 458),
    ("mobilenet_v2", 128, 16, 1, 302, 324),
    ("mobilenet_v2", 256, 64, 1, 3284, 3634),
    ("mobilenet_v2", 224, 32, 2, 1338, 1474),
    ("efficientnet_v2_s", 128, 16, 1, 738, 822),
    ("efficientnet_v2_s", 256, 64, 1, 6553, 6720),
    ("efficientnet_v2_s", 224, 32, 2, 2815, 3112),
    ("squeezenet1_1", 128, 16, 1, 68, 86),
    ("squeezenet1_1", 256, 64, 1, 1012, 1484),
    ("squeezenet1_1", 224, 32, 2, 394, 540),
    ("swin_t", 128, 16, 1, 958, 1112),
    ("swin_t", 256, 64, 1, 7144, 7724),
    ("swin_t", 224, 32, 2, 2729, 2902),
    ("resnext50_32x4d", 128, 16, 1, 685, 726),
    ("resnext50_32x4d", 256, 64, 1, 4991, 5526),
    ("resnext50_32x4d", 224, 32, 2, 2247, 2460),
    ("googlenet", 128, 16, 1, 299, 312),
    ("googlenet", 256, 64, 1, 2589, 2602),
    ("googlenet", 224, 32, 2, 1108, 1126),
    ("resnet101", 256, 64, 1, 5852, 6344),
    ("resnet101", 224, 32, 2, 2832, 2922),
    ("mobilenet_v3_small", 128, 16, 1, 132, 148),
    ("mobilenet_v3_small", 256, 64, 1, 797, 948),
    ("mobilenet_v3_small", 224, 32, 2, 366, 400),
    ("vgg16", 224, 32, 2, 4066, 4446),
]
# model, precision, micro_batch, accumulation, max_allocated_mib, max_reserved_mib; 224 px, channels_last
MEASURED = [
    ("cropshield_cnn", "bf16", 16, 1, 1130, 1302),
    ("cropshield_cnn", "bf16", 128, 1, 8080, 9474),
    ("cropshield_cnn", "fp16", 8, 1, 633, 706),
    ("cropshield_cnn", "fp16", 16, 1, 1130, 1302),
    ("cropshield_cnn", "fp16", 16, 2, 1149, 1302),
    ("cropshield_cnn", "fp16", 16, 4, 1149, 1302),
    ("cropshield_cnn", "fp16", 32, 1, 2125, 2472),
    ("cropshield_cnn", "fp16", 64, 1, 4110, 4800),
    ("cropshield_cnn", "fp16", 128, 1, 8080, 9472),
    ("cropshield_cnn", "fp16", 256, 1, 16030, 18832),
    ("efficientnet_b0", "fp16", 8, 1, 469, 516),
    ("efficientnet_b0", "fp16", 16, 1, 814, 884),
    ("efficientnet_b0", "fp16", 16, 2, 831, 894),
    ("efficientnet_b0", "fp16", 16, 4, 831, 894),
    ("efficientnet_b0", "fp16", 32, 1, 1506, 1692),
    ("efficientnet_b0", "fp16", 64, 1, 2892, 3314),
    ("efficientnet_b0", "fp16", 128, 1, 5622, 6200),
    ("efficientnet_b0", "fp16", 256, 1, 11116, 12220),
    ("resnet50", "fp16", 8, 1, 758, 794),
    ("resnet50", "fp16", 16, 1, 1087, 1206),
    ("resnet50", "fp16", 16, 2, 1173, 1210),
    ("resnet50", "fp16", 16, 4, 1173, 1210),
    ("resnet50", "fp16", 32, 1, 1773, 1968),
    ("resnet50", "fp16", 64, 1, 3140, 3428),
    ("resnet50", "fp16", 128, 1, 5886, 6484),
    ("resnet50", "fp16", 256, 1, 11341, 12602),
]
# model, micro_batch, max_allocated_mib, max_reserved_mib; fp32, not channels_last
MEASURED_FP32 = [
    ("cropshield_cnn", 16, 1933, 3412),
    ("cropshield_cnn", 64, 7288, 12908),
    ("cropshield_cnn", 128, 14430, 25636),
    ("efficientnet_b0", 16, 1483, 1760),
    ("efficientnet_b0", 64, 5539, 6184),
    ("efficientnet_b0", 128, 10959, 12098),
    ("resnet50", 16, 1712, 1902),
    ("resnet50", 64, 5650, 6708),
    ("resnet50", 128, 10933, 13046),
]


def estimate_of(
    model: str, precision: str = "fp16", image_size: int = 224, channels_last: bool = True, **settings: object
) -> MemoryEstimate:
    return cached_estimate(model, precision, image_size, channels_last, tuple(settings.items()))


@cache
def cached_estimate(
    model: str, precision: Any, image_size: int, channels_last: bool, settings: tuple[tuple[str, Any], ...]
) -> MemoryEstimate:
    return estimate_memory(model, 22, image_size, precision, channels_last=channels_last, **dict(settings))


@pytest.mark.slow
@pytest.mark.parametrize("model, image_size, micro_batch, accumulation, allocated, reserved", HELD_OUT)
def test_peaks_of_networks_that_no_constant_was_set_by(
    model: str, image_size: int, micro_batch: int, accumulation: int, allocated: int, reserved: int
) -> None:
    estimate = estimate_of(model, "fp16", image_size)

    assert estimate.peak_allocated_mib(micro_batch, accumulation) == pytest.approx(allocated, rel=0.03, abs=16)
    # blocks of 2 and 20 MiB: on small networks shares say little
    allowed = 0.05 * reserved if reserved >= 1024 else 64
    assert estimate.peak_reserved_mib(micro_batch, accumulation) == pytest.approx(reserved, abs=allowed)


@pytest.mark.slow
@pytest.mark.parametrize("model, precision, micro_batch, accumulation, allocated, reserved", MEASURED)
def test_peaks_are_those_of_the_gpu(
    model: str, precision: str, micro_batch: int, accumulation: int, allocated: int, reserved: int
) -> None:
    estimate = estimate_of(model, precision)

    assert estimate.peak_allocated_mib(micro_batch, accumulation) == pytest.approx(
        allocated, rel=0.05 if micro_batch < 16 else 0.03
    )
    assert estimate.peak_reserved_mib(micro_batch, accumulation) == pytest.approx(reserved, rel=0.06, abs=64)


@pytest.mark.slow
@pytest.mark.parametrize("model, micro_batch, allocated, reserved", MEASURED_FP32)
def test_peaks_of_fp32_without_channels_last(model: str, micro_batch: int, allocated: int, reserved: int) -> None:
    estimate = estimate_of(model, "fp32", channels_last=False)

    assert estimate.peak_allocated_mib(micro_batch) == pytest.approx(allocated, rel=0.03)
    assert estimate.peak_reserved_mib(micro_batch) == pytest.approx(reserved, rel=0.08, abs=64)


@pytest.mark.parametrize(
    "model, measured", [("cropshield_cnn", 62.03), ("efficientnet_b0", 42.66), ("resnet50", 42.91)]
)
def test_an_image_adds_what_it_adds_on_the_gpu_between_64_and_128(model: str, measured: float) -> None:
    estimate = estimate_of(model)
    added = (estimate.peak_allocated_mib(128) - estimate.peak_allocated_mib(64)) / 64

    assert added == pytest.approx(measured, rel=0.02)
    assert estimate.per_image_mib == pytest.approx(measured, rel=0.02)


def test_the_parts_of_a_resnet50_are_its_parameters() -> None:
    estimate = estimate_of("resnet50")

    assert estimate.weights_mib == pytest.approx(89.84, abs=0.01)
    assert estimate.gradients_mib == pytest.approx(89.84, abs=0.01)
    assert estimate.optimizer_mib == pytest.approx(179.70, abs=0.01)
    assert estimate.cast_cache_mib == pytest.approx(44.82, abs=0.05)
    assert estimate_of("tiny_cnn", "fp32", 64).cast_cache_mib == 0


def test_an_average_of_the_weights_costs_the_network_once_more() -> None:
    """ResNet-50 of 22 classes: 23,553,110 weights and 53,120 statistics of 4 bytes, 53 counters of 8."""
    plain, averaged = estimate_of("resnet50"), estimate_of("resnet50", ema=True)

    assert averaged.average_mib == (23_553_110 * 4 + 53_120 * 4 + 53 * 8) / MIB
    assert averaged.fixed_mib - plain.fixed_mib == pytest.approx(90.05, abs=0.01)
    assert sum(averaged.resident) - sum(plain.resident) == 23_553_110 * 4 + 53_120 * 4 + 53 * 8
    # Blocks count as a whole, with up to 1 MiB that nobody asked for.
    assert averaged.peak_allocated_mib(32) - plain.peak_allocated_mib(32) == pytest.approx(90.05, abs=3)
    assert averaged.peak_reserved_mib(32) - plain.peak_reserved_mib(32) > 60  # segments are not filled to the brim
    assert plain.average_mib == 0


def test_further_micro_steps_cost_the_gradients_once() -> None:
    estimate = estimate_of("resnet50")

    # An H200's own figures at micro-batch 16 differ by 86 MiB: blocks count as a whole, with up to 1 MiB too much.
    assert estimate.peak_allocated_mib(128, 2) - estimate.peak_allocated_mib(128, 1) == pytest.approx(89.8, abs=1.5)
    assert estimate.peak_allocated_mib(128, 8) == estimate.peak_allocated_mib(128, 2)


def test_the_largest_micro_batch_fits_and_the_next_does_not() -> None:
    estimate = estimate_of("cropshield_cnn")
    largest = estimate.largest_micro_batch(7000, accumulation=2)

    assert estimate.peak_reserved_mib(largest, 2) <= 7000 < estimate.peak_reserved_mib(largest + 1, 2)
    assert 80 <= largest <= 100
    assert estimate.largest_micro_batch(50, accumulation=1) == 0


def test_sgd_keeps_one_state_or_none() -> None:
    assert (
        estimate_of("tiny_cnn", image_size=64, optimizer="sgd").optimizer_mib
        == estimate_of("tiny_cnn", image_size=64).weights_mib
    )
    assert estimate_of("tiny_cnn", image_size=64, optimizer="sgd", momentum=0.0).optimizer_mib == 0


def test_a_network_without_matrix_products_has_no_workspaces_of_cublas() -> None:
    """SqueezeNet ends in a convolution; an H200 allocated 69 MiB for it, and 64 are cuBLAS's."""
    assert estimate_of("squeezenet1_1", image_size=128).library_workspaces == ()
    assert estimate_of("tiny_cnn", image_size=64).library_workspaces == (32 * MIB, 32 * MIB)


@pytest.mark.parametrize(
    "rows, columns, measured_mib",
    [
        (65536, 384, 132), (65536, 96, 12), (16384, 768, 96), (4096, 1536, 48), (1024, 768, 6), (3152, 768, 18.75),
        (3136, 1152, 27.5625), (19600, 288, 43.171875), (64 * 128 * 128, 128, 132), (64 * 256 * 256, 64, 33),
        (128 * 128, 16 * 32, 64), (64 * 64, 16 * 96, 48), (128, 128, 0), (0, 8, 0),
    ],
)  # fmt: skip
def test_a_sum_over_rows_takes_the_buffer_that_an_h200_took(rows: int, columns: int, measured_mib: float) -> None:
    assert row_sum_buffer(rows, columns) == measured_mib * MIB


def test_the_gradients_of_two_branches_are_summed_in_place() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.right = (nn.Conv2d(3, 3, 1, bias=False) for _ in range(3))

        def forward(self, images_BCHW: Tensor) -> Tensor:
            images_BCHW = self.first(images_BCHW)
            logits_BK: Tensor = (self.left(images_BCHW) * self.right(images_BCHW)).mean(dim=(2, 3))
            return logits_BK

    window = trace_window(Branches().to("meta"), 8, 64, "fp32", channels_last=False)

    sizes = [size for _, size in window.first if size == 8 * 3 * 64 * 64 * 4]
    # 3 convolutions and a product; backward: the mean's, the product's two and one image gradient for each branch
    assert len(sizes) == 4 + 1 + 2 + 2


def test_a_frozen_backbone_keeps_no_activations() -> None:
    frozen, whole = estimate_of("resnet18", image_size=64, freeze_backbone=True), estimate_of("resnet18", image_size=64)

    assert frozen.per_image_mib < whole.per_image_mib / 2
    assert frozen.gradients_mib == pytest.approx((512 * 22 + 22) * 4 / MIB)


def test_bytes_kept_beside_each_image_are_counted() -> None:
    plain = estimate_of("tiny_cnn", image_size=64)
    with_uint8 = estimate_of("tiny_cnn", image_size=64, input_bytes_per_image=MIB)

    assert with_uint8.peak_allocated_mib(32) - plain.peak_allocated_mib(32) == pytest.approx(32)


@pytest.mark.slow
@pytest.mark.parametrize("model, image_size", [("vit_b_16", 224), ("swin_t", 32), ("convnext_tiny", 96)])
def test_attention_and_layer_norm_models_can_be_estimated(model: str, image_size: int) -> None:
    estimate = estimate_of(model, "bf16", image_size)

    assert estimate.per_image_mib > 0
    assert estimate.cast_cache_mib == pytest.approx(estimate.weights_mib / 2, rel=0.02)


class ReadsValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, 22)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.head(images_BCHW.flatten(1))
        return logits_BK * 2 if logits_BK.max().item() > 0 else logits_BK


def test_a_model_whose_flow_depends_on_data_is_told_apart() -> None:
    with pytest.raises(EstimateUnavailable, match="cannot be traced without a GPU"):
        trace_window(ReadsValues().to("meta"), 4, 8, "fp16", channels_last=False)
    assert issubclass(EstimateUnavailable, RunFailure)


def test_a_model_whose_constructor_reads_values_is_made_on_the_cpu_first() -> None:
    def build() -> nn.Module:
        return nn.Conv2d(3, int(torch.linspace(0, 8, 3).tolist()[-1]), 3)

    model = meta_copy(build, channels_last=True)

    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_an_image_too_small_for_the_model_is_told_apart() -> None:
    with pytest.raises(EstimateUnavailable, match="cannot be traced without a GPU"):
        estimate_memory("alexnet", 22, 32, "fp16")


OWN = """
import torch
from torch import nn

GAIN = torch.tensor(2.0)  # made when the file is imported: a real number, also where the network is only traced

class Small(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
        self.gain = float(GAIN)
"""


def test_a_users_own_network_is_estimated_and_an_optimizer_of_unknown_state_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    model = f"{tmp_path / 'own.py'}:Small"

    estimate = estimate_memory(model, 4, 32, "fp32")

    assert estimate.weights_mib == (8 * 3 * 9 + 8 + 4 * 8 + 4) * 4 / MIB
    assert estimate.optimizer_mib == 2 * estimate.weights_mib
    with pytest.raises(EstimateUnavailable, match=r"memory optimizer 'own\.py:nadam' takes for its state is not known"):
        estimate_memory(model, 4, 32, "fp32", optimizer="own.py:nadam")


def test_an_unknown_model_is_the_users_error() -> None:
    with pytest.raises(ConfigError, match="unknown model"):
        estimate_memory("resnet5", 22, 224, "fp16")


def test_autocast_on_meta_casts_what_cuda_casts_and_leaves_nothing_behind() -> None:
    linear, norm = nn.Linear(8, 8, device="meta"), nn.LayerNorm(8, device="meta")
    values = torch.empty(4, 8, device="meta")
    with cuda_semantics("fp16") as casts:
        assert linear(values).dtype == torch.float16
        assert norm(linear(values)).dtype == torch.float32
        assert linear(values).softmax(1).dtype == torch.float32
        assert casts.num_bytes() == (8 * 8 + 8) * 2
    assert linear(values).dtype == torch.float32


def test_the_allocator_takes_segments_as_pytorch_does() -> None:
    allocator = CachingAllocator()
    allocator.allocate("tiny", 1)
    assert (allocator.allocated, allocator.reserved) == (512, 2 * MIB)
    allocator.allocate("middle", 3 * MIB)
    assert allocator.reserved == 22 * MIB
    allocator.replay([(0, 11 * MIB), (0, FREED), (1, 9 * MIB)])  # both are cut out of what the 20 MiB segment has left
    assert allocator.reserved == 22 * MIB
    allocator.free("middle")  # 3 MiB before slot 1 and 8 MiB behind it are free: 11, but in two pieces
    allocator.allocate("large", 10 * MIB + 1)
    assert allocator.reserved == 34 * MIB
    assert allocator.peak_allocated == 19 * MIB + 1024


OWN_LOSS = """
from torch.nn import functional as F
from tune_cropshield.training.losses import SampleLoss

class Wide(SampleLoss):
    def per_sample(self, logits_BK, labels_B):
        wide_B = logits_BK.repeat_interleave(4096, dim=1).square().mean(dim=1)
        return F.cross_entropy(logits_BK, labels_B, reduction="none") + wide_B
"""


def test_the_loss_that_is_trained_with_is_what_is_traced(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_LOSS, encoding="utf-8")
    plain, focal, bi_tempered, own = (
        estimate_of("tiny_cnn", image_size=32, loss=loss)
        for loss in ("cross_entropy", "focal", "bi_tempered", f"{tmp_path / 'own.py'}:Wide")
    )

    for ours in (focal, bi_tempered):  # of 22 numbers a sample
        assert ours.peak_allocated_mib(64) == pytest.approx(plain.peak_allocated_mib(64), rel=0.01)
    # The wide tensor, which square() keeps for its derivative, has 64 x 22 x 4096 numbers of 4 bytes.
    assert own.peak_allocated_mib(64) > plain.peak_allocated_mib(64) + 64 * 22 * 4096 * 4 / MIB
