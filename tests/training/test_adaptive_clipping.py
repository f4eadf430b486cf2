"""Adaptive gradient clipping (AGC), as its paper and timm do it: literal gradients, and whose are left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tune_cropshield.training.clipping import Clipping, clip_gradients
from tune_cropshield.training.models import build_model, head_of

# Of each architecture, the layer that maps features to classes: what adaptive clipping leaves alone, what
# freeze_backbone trains, and what weights of another number of classes do not fill.
CLASSIFIERS = {
    "tiny_cnn": "classifier",
    "cropshield_cnn": "classifier",
    "alexnet": "classifier.6",
    "convnext_tiny": "classifier.2",
    "densenet121": "classifier",
    "efficientnet_b0": "classifier.1",
    "efficientnet_v2_s": "classifier.1",
    "googlenet": "fc",
    "inception_v3": "fc",
    "maxvit_t": "classifier.5",
    "mnasnet0_5": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "regnet_y_400mf": "fc",
    "resnet18": "fc",
    "resnext50_32x4d": "fc",
    "shufflenet_v2_x1_0": "fc",
    "squeezenet1_0": "classifier.1",
    "swin_t": "head",
    "swin_v2_t": "head",
    "vgg11_bn": "classifier.6",
    "vit_b_16": "heads.head",
    "wide_resnet50_2": "fc",
}


@pytest.mark.parametrize(("model", "name"), CLASSIFIERS.items())
def test_the_classifier_of_each_architecture_is_known(model: str, name: str) -> None:
    found, layer = head_of(build_model(model, 7))
    assert found == name
    assert isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.shape[0] == 7


def with_gradient(values: list[object], gradient: list[object]) -> nn.Parameter:
    parameter = nn.Parameter(torch.tensor(values))
    parameter.grad = torch.tensor(gradient)
    return parameter


def test_units_are_bounded_to_a_share_of_their_weights_and_the_classifiers_are_not() -> None:
    """lambda is 0.1, and norms of weights below 0.001 count as 0.001."""
    weight = with_gradient([[3.0, 4.0], [0.0, 0.0], [4.0, -3.0]], [[0.0, 10.0], [0.6, 0.8], [0.3, 0.4]])
    zeros = with_gradient([0.0, 0.0], [3.0, 4.0])  # a vector is one unit, as it was made: it moves by lambda * 0.001
    vector = with_gradient([30.0, 40.0], [0.0, 10.0])  # norm 50: up to 5
    head, head_bias = with_gradient([[1.0, 0.0]], [[7.0, 24.0]]), with_gradient([0.0], [9.0])

    norm, clipped = clip_gradients([weight, zeros, vector, head, head_bias], Clipping("agc", 0.1), [head, head_bias])

    expected = [
        (weight, [[0.0, 0.5], [6e-5, 8e-5], [0.3, 0.4]]),
        (zeros, [6e-5, 8e-5]),
        (vector, [0.0, 5.0]),
        (head, [[7.0, 24.0]]),
        (head_bias, [9.0]),
    ]
    for parameter, gradient in expected:
        torch.testing.assert_close(parameter.grad, torch.tensor(gradient), rtol=1e-6, atol=1e-9)
    assert bool(clipped)
    # of all gradients, as they came: 100 + 1 + 0.25, 25, 100, 49 + 576, 81
    assert float(norm) == pytest.approx(932.25**0.5)


def test_a_large_gradient_of_the_classifier_alone_is_no_clipping() -> None:
    head = with_gradient([[1.0, 0.0]], [[7.0, 24.0]])
    norm, clipped = clip_gradients([head], Clipping("agc", 0.1), [head])
    assert (float(norm), bool(clipped)) == (25.0, False)
    assert head.grad is not None and head.grad.tolist() == [[7.0, 24.0]]
