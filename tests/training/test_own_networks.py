"""A user's own network: what is told of one that cannot be trained, and which part of it is its head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.errors import ConfigError
from tune_cropshield.memory.predict.estimate import estimate_memory
from tune_cropshield.training.model_checks import check_network
from tune_cropshield.training.models import build_model, head_of

NETWORKS = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, num_classes)
    def forward(self, images):
        return self.head(self.features(images))

class Fixed(Net):
    def __init__(self, num_classes):
        super().__init__(1000)

class InTraining(Net):
    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits

class InEvaluation(Net):
    def forward(self, images):
        logits = super().forward(images)
        return logits if self.training else logits.argmax(1)

class Half(Net):
    def forward(self, images):
        return super().forward(images).half()

class InPlace(Net):
    def forward(self, images):
        images -= images.mean()
        return super().forward(images)

class ViewInPlace(Net):
    def forward(self, images):
        images[:, 0].zero_()
        return super().forward(images)

class Cut(Net):
    def forward(self, images):
        return super().forward(images).detach()

class Sized(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.features, self.head = nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes)

class Small(Net):
    def forward(self, images):
        return super().forward(F.avg_pool2d(images, 40))

class Raises(Net):
    def forward(self, images):
        return {}["features"]

class Exits(Net):
    def forward(self, images):
        raise SystemExit("no GPU")

class Probabilities(Net):
    def forward(self, images):
        return super().forward(images).softmax(1)

class Lazy(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.head = nn.LazyLinear(num_classes)

class Nothing(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
    def forward(self, images):
        return images.mean((1, 2, 3))[:, None].expand(-1, self.num_classes)

class Reading(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.rates = [value.item() for value in torch.linspace(0, 0.1, 3)]

class TwoInputs(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Bilinear(8, 3, num_classes)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)), images.mean((2, 3)))

def of_width(classes, width=8):
    return Net(classes)

def more(num_classes, width):
    return Net(num_classes)

def no_module(num_classes):
    return [1.0] * num_classes

def forgotten(num_classes):
    Net(num_classes)

made = Net(3)
number = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "networks.py"
    path.write_text(NETWORKS, encoding="utf-8")
    return path


def trial(file: Path, name: str, **settings: Any) -> TrialConfig:
    return TrialConfig.model_validate({"model": f"{file}:{name}", "image_size": 48, **settings})


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Fixed", r"it gives \(2, 1000\) for 2 images and 2 classes, not logits \(2, 2\)"),
        ("InTraining", r"it gives tuple for 2 images and 2 classes, not logits \(2, 2\)"),
        ("InEvaluation", r"in evaluation, it gives \(2,\) for 2 images and 2 classes, not logits \(2, 2\)"),
        ("Half", "it gives float16 for float32 images, not float32"),
        ("InPlace", "it changes the images that it is given, in place: let it work on a copy"),
        ("ViewInPlace", "it changes the images that it is given, in place"),
        ("Cut", "no gradients can be computed: .*does not require grad"),
        ("Sized", r"image_size: .* cannot take pictures of 48 px \(RuntimeError: .*shapes cannot.*\): 32 px works"),
        ("Raises", r"KeyError: 'features' \(networks.py, line 57\)"),
        ("Exits", r"SystemExit: no GPU \(networks.py, line 61\)"),
        (
            "Probabilities",
            "it gives probabilities, which add up to 1, and not logits: leave its softmax or sigmoid out",
        ),
        ("Lazy", r"has weights without a shape \(nn.Lazy\.\.\.\): let your function show it an image"),
        ("Nothing", "has no weights that could be trained"),
        ("of_width", r"is called as of_width\(num_classes=...\), but it takes \(classes, width=8\): "),
        ("more", r"but it takes \(num_classes, width\): missing a required argument: 'width'"),
        ("no_module", "must make a torch.nn.Module, but made 'list'"),
        ("forgotten", "must make a torch.nn.Module, but made None"),
        ("made", "is a network that is made already: name the class or function that makes it"),
        ("number", "must be a class or a function, but is 'int'"),
    ],
)
def test_what_cannot_be_trained_is_told_with_its_reason(file: Path, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_network(trial(file, name))


def test_a_network_for_larger_images_is_told_with_a_size_that_works(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot take pictures of 32 px \(.*\): 128 px works"):
        check_network(trial(file, "Small", image_size=32))


@pytest.mark.parametrize("asked", [{"freeze_backbone": True}, {"dropout": 0.2}, {"agc": 0.1}])
def test_a_head_that_cannot_be_told_is_asked_for_where_it_matters(file: Path, asked: dict[str, Any]) -> None:
    check_network(trial(file, "TwoInputs"))
    told = r'head: the last layer of .*TwoInputs cannot be told.*: say head = "\.\.\."; it could be head$'
    with pytest.raises(ConfigError, match=told):
        check_network(trial(file, "TwoInputs", **asked))
    check_network(trial(file, "TwoInputs", head="head", **asked))


def test_a_head_that_is_none_is_told_with_those_that_could_be(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no part called 'fc'; it could be head$"):
        check_network(trial(file, "Net", head="fc"))
    with pytest.raises(ConfigError, match=r"has no weights in a part called 'features.1'; it could be head$"):
        check_network(trial(file, "Net", head="features.1"))
    with pytest.raises(ConfigError, match=r"resnet18 has no part called 'head'; it could be .*fc$"):
        check_network(TrialConfig(model="resnet18", head="head", image_size=64))
    with pytest.raises(ConfigError, match=r"tiny_cnn has no part called 'fc'; it could be classifier$"):
        check_network(TrialConfig(model="tiny_cnn", head="fc", image_size=64))


def test_the_head_that_is_named_learns_alone_and_its_inputs_drop_out(file: Path) -> None:
    model = build_model(f"{file}:TwoInputs", 3, freeze_backbone=True, dropout=0.999, head="head").train()
    assert head_of(model)[0] == "head"
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["head.weight", "head.bias"]
    images = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(model(images), model.head.bias.expand(4, 3), atol=1e-2, rtol=0)
    assert not torch.allclose(model.eval()(images), model.head.bias.expand(4, 3), atol=1e-2)


def test_a_head_of_other_classes_keeps_its_start_where_weights_of_a_file_are_taken(file: Path, tmp_path: Path) -> None:
    source = build_model(f"{file}:TwoInputs", 5)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    model = build_model(f"{file}:TwoInputs", 3, pretrained=str(tmp_path / "weights.pth"), head="head")
    assert torch.equal(model.features[0].weight, source.features[0].weight)
    assert model.head.weight.shape == (3, 8, 3)


def test_a_network_that_reads_values_while_it_is_made_is_estimated(file: Path) -> None:
    weights_mib = estimate_memory(f"{file}:Reading", 3, 32, "fp16").weights_mib
    assert weights_mib == pytest.approx((3 * 9 * 8 + 8 + 8 * 3 + 3) * 4 / 2**20)


class Watching(nn.Module):
    """Standardises the weights of a layer that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        deviation, mean = torch.std_mean(self.conv.weight, dim=(1, 2, 3), keepdim=True)
        self.standardised = (self.conv.weight - mean) / (deviation + 1e-5)
        logits_BK: torch.Tensor = self.head(F.conv2d(images_BCHW, self.standardised).mean((2, 3)))
        return logits_BK


def test_autocast_leaves_the_standardisation_of_weights_in_fp32() -> None:
    model = Watching()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.rand(2, 3, 16, 16))
    assert (model.standardised.dtype, logits.dtype) == (torch.float32, torch.bfloat16)
    assert model.standardised.mean((1, 2, 3)).abs().max() < 1e-6  # in bf16 it would be 1e-3
