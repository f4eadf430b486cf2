"""Gradients in fixed places, cast and summed at once, against autograd's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from test_step import step_for
from torch import Tensor, nn

from tune_cropshield.config.settings import Precision
from tune_cropshield.data.mixing import Targets
from tune_cropshield.training.graphs import Eager
from tune_cropshield.training.models import build_model
from tune_cropshield.training.step import WindowStep

CLASSES, MICRO_BATCH, MICRO_STEPS = 3, 4, 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So many small layers make two threads wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class InPlace(Eager):
    """Runs work as it comes, with gradients where a captured graph would need them."""

    keeps_gradients = True


class Attentive(nn.Module):
    """Layers of many kinds: attention, a transposed convolution, a layer norm, a bare parameter, tied weights, a weight
    norm, a large layer, and one layer that takes no part.
    """

    __module__ = "torchvision.models"  # it is to be trusted as one of theirs: it reads weights only by calling layers

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv2d(3, 8, 8, stride=8), nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.scale, self.head, self.idle = nn.Parameter(torch.ones(8)), nn.Linear(8, CLASSES), nn.Linear(8, 8)
        self.once, self.twice = nn.Linear(8, 8), nn.Linear(8, 8)
        self.twice.weight = self.once.weight
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.wide, self.narrow = nn.Linear(8, 40_000), nn.Linear(40_000, 8)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        tokens_BTD = self.up(self.stem(images_BCHW)).flatten(2).transpose(1, 2) * self.scale
        seen_BTD, _ = self.attention(tokens_BTD, tokens_BTD, tokens_BTD)
        mean_BD = self.norm(seen_BTD).mean(1)
        wide_BD = self.narrow(self.wide(mean_BD).relu())
        logits_BK: Tensor = self.head(self.normed(self.twice(self.once(mean_BD).relu()).relu()) + wide_BD)
        return logits_BK


def step_of(model: str, precision: Precision, runner: Eager, freeze: bool = False) -> WindowStep:
    torch.manual_seed(0)
    network = Attentive() if model == "attentive" else build_model(model, CLASSES, False, freeze, None)
    network = network.to(memory_format=torch.channels_last)
    return step_for(network, precision=precision, scale=16.0, peak_lr=1e-3, weight_decay=0.01, runner=runner)


def windows(number: int) -> list[list[tuple[Tensor, Targets]]]:
    torch.manual_seed(1)
    return [
        [
            (torch.randn(MICRO_BATCH, 3, 32, 32), Targets(torch.randint(CLASSES, (MICRO_BATCH,))))
            for _ in range(MICRO_STEPS)
        ]
        for _ in range(number)
    ]


def train(step: WindowStep, window: list[tuple[Tensor, Targets]]) -> None:
    torch.manual_seed(2)  # of dropout
    weight = step.loss.weight(Targets(torch.cat([targets.labels_B for _, targets in window])))
    for images, targets in window:
        step.micro_step(images, targets, weight)
    step.update(weight)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("model", "freeze"), [("tiny_cnn", False), ("mobilenet_v3_small", False), ("resnet18", True), ("attentive", False)]
)
def test_they_train_as_autograds_own_to_the_last_bit(model: str, freeze: bool, precision: Precision) -> None:
    own, fixed = step_of(model, precision, Eager(), freeze), step_of(model, precision, InPlace(), freeze)
    for window in windows(3):
        train(own, window), train(fixed, window)
    assert int(own.updates) == int(fixed.updates) > 0
    for (name, expected), value in zip(own.model.state_dict().items(), fixed.model.state_dict().values(), strict=True):
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_they_stay_where_they_are_and_are_zero_between_windows(precision: Precision) -> None:
    step = step_of("tiny_cnn", precision, InPlace())
    train(step, windows(1)[0])
    places = [parameter.grad.data_ptr() for parameter in step.parameters if parameter.grad is not None]
    for window in windows(2):
        train(step, window)
        assert [parameter.grad.data_ptr() for parameter in step.parameters if parameter.grad is not None] == places
        assert not any(parameter.grad.any() for parameter in step.parameters if parameter.grad is not None)
    assert len(places) == len(step.parameters)


class Standardised(nn.Conv2d):
    """A convolution whose weights are standardised: their mean and deviation are computed in the weights' own type.

    Weight standardisation, https://arxiv.org/abs/1903.10520.
    """

    def forward(self, images_BCHW: Tensor) -> Tensor:
        self.seen = self.weight.dtype
        deviation, mean = torch.std_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        return nn.functional.conv2d(images_BCHW, (self.weight - mean) / (deviation + 1e-5), self.bias)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_layer_made_from_one_that_autocast_casts_keeps_its_weight_in_fp32(precision: Precision) -> None:
    steps = []
    for runner in (Eager(), InPlace()):
        torch.manual_seed(0)
        model = nn.Sequential(
            Standardised(3, 8, 3), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)
        )
        steps.append(step_for(model, precision=precision, scale=16.0, peak_lr=1e-3, runner=runner))
    for window in windows(2):
        for step in steps:
            train(step, window)
            assert step.model[0].seen == torch.float32
    for (name, expected), value in zip(
        steps[0].model.state_dict().items(), steps[1].model.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("in_backward", [False, True])
def test_a_window_that_failed_midway_is_trained_anew_as_if_it_had_not_begun(in_backward: bool) -> None:
    whole, failing = (step_of("tiny_cnn", "bf16", InPlace()) for _ in range(2))
    first, second = windows(2)
    train(whole, first), train(whole, second)

    train(failing, first)
    failing.remember()
    weight = torch.tensor(float(MICRO_BATCH * MICRO_STEPS))
    failing.micro_step(*second[0], weight)
    layer = next(layer for layer in failing.model.modules() if isinstance(layer, nn.Linear))
    register = layer.register_full_backward_hook if in_backward else layer.register_forward_hook
    hook = register(lambda *_: fail())
    with pytest.raises(torch.OutOfMemoryError):
        failing.micro_step(*second[1], weight)
    hook.remove()
    failing.go_back()
    train(failing, second)

    for (name, expected), value in zip(
        whole.model.state_dict().items(), failing.model.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name


def test_memory_that_runs_out_while_gradients_are_summed_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, failing = (step_of("tiny_cnn", "bf16", InPlace()) for _ in range(2))
    [window] = windows(1)
    train(whole, window)

    failing.remember()
    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(torch, "_foreach_copy_", lambda to, *_: fail() if to[0].dtype == torch.float32 else None)
        failing.micro_step(*window[0], torch.tensor(1.0))
    failing.go_back()
    train(failing, window)

    for (name, expected), value in zip(
        whole.model.state_dict().items(), failing.model.state_dict().values(), strict=True
    ):
        assert torch.equal(value, expected), name


def fail() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


class StandardisedByItsHolder(nn.Module):
    """A convolution whose weights are standardised in the module that holds it, and a plain head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, CLASSES)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        weight = self.conv.weight
        deviation, mean = torch.std_mean(weight, dim=(1, 2, 3), keepdim=True)
        self.seen = (weight.dtype, ((weight - mean) / deviation).dtype)
        features_BCHW = nn.functional.conv2d(images_BCHW, (weight - mean) / (deviation + 1e-5), self.conv.bias)
        self.computed_in = features_BCHW.dtype
        logits_BK: Tensor = self.head(features_BCHW.mean((2, 3)))
        return logits_BK


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("runner", [Eager(), InPlace()])
def test_weights_that_the_holder_of_a_layer_standardises_are_standardised_in_fp32(
    precision: Precision, runner: Eager
) -> None:
    torch.manual_seed(0)
    model = StandardisedByItsHolder()
    step = step_for(model, precision=precision, scale=16.0, peak_lr=1e-3, runner=runner)
    for window in windows(2):
        train(step, window)
        assert model.seen == (torch.float32, torch.float32)
        assert model.computed_in == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]


@pytest.mark.parametrize("runner", [Eager(), InPlace()])
def test_timms_standardised_convolutions_are_standardised_in_fp32(runner: Eager) -> None:
    layers = pytest.importorskip("timm.layers")
    torch.manual_seed(0)
    model = nn.Sequential(layers.ScaledStdConv2d(3, 8, 3), layers.StdConv2d(8, 8, 3), nn.Flatten(), nn.Linear(8192, 3))
    step = step_for(model, precision="bf16", scale=16.0, peak_lr=1e-3, runner=runner)
    seen: list[torch.dtype] = []

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func is nn.functional.batch_norm:  # timm standardises with it
                seen.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    with Watched():
        train(step, windows(1)[0])
    assert seen == [torch.float32] * 2 * MICRO_STEPS
