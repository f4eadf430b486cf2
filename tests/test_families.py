"""What is searched where only photographs, or photographs and a network, were given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune_cropshield.config.families import default_network, family_of, optimizer_for
from tune_cropshield.config.places import shipped_spaces


def test_without_a_network_a_gpu_fine_tunes_efficientnet_b0_and_a_cpu_trains_a_small_one() -> None:
    network = default_network("cuda")
    family = family_of(network, "cuda", True, memory_mib=7500.0, asked_for=False)
    assert (family.space, family.trial) == (
        "efficientnet_b0.toml",
        {"model": "efficientnet_b0", "pretrained": True, "image_size": 224},
    )
    assert family.search == {}
    assert default_network("cpu") == "tiny_cnn"
    assert family_of("tiny_cnn", "cpu", False, asked_for=False).space == "tiny_cnn.toml"


@pytest.mark.parametrize(
    ("model", "weights", "space", "pretrained", "size"),
    [
        ("resnet18", True, "resnet50_fine_tuning.toml", True, 224),
        ("resnet18", False, "resnet50_onecycle.toml", False, 224),
        ("wide_resnet50_2", True, "resnet50_fine_tuning.toml", True, 224),
        ("convnext_tiny", True, "efficientnet_b0.toml", True, 224),
        ("convnext_tiny", False, "cropshield_cnn.toml", False, 224),
        ("vit_b_16", True, "efficientnet_b0.toml", True, 224),
        ("vit_h_14", True, "cropshield_cnn.toml", False, 224),  # its weights are for another size
        ("inception_v3", True, "efficientnet_b0.toml", True, 299),
        ("efficientnet_b3", True, "efficientnet_b0.toml", True, 300),
        ("cropshield_cnn", True, "cropshield_cnn.toml", False, 224),
        ("mine.py:Net", True, "cropshield_cnn.toml", False, 224),
    ],
)
def test_a_network_gets_the_ranges_of_its_family_at_its_own_size(
    model: str, weights: bool, space: str, pretrained: bool, size: int
) -> None:
    family = family_of(model, "cuda", weights)

    assert family.space == space and family.space in shipped_spaces()
    assert family.trial == {"model": model, "pretrained": pretrained, "image_size": size}


def test_a_gpu_with_little_memory_gets_smaller_images_unless_the_network_was_asked_for() -> None:
    def size(memory_mib: float, asked_for: bool) -> int:
        family = family_of("efficientnet_b0", "cuda", True, memory_mib=memory_mib, asked_for=asked_for)
        return int(family.trial["image_size"])

    assert (size(1400.0, False), size(1600.0, False), size(1400.0, True)) == (128, 224, 224)


def test_a_large_network_on_a_cpu_gets_few_trials_and_a_quick_search_small_images() -> None:
    assert family_of("resnet18", "cpu", True).search == {"trials": 12}
    assert family_of("resnet18", "cuda", True).search == {}
    assert family_of("efficientnet_b0", "cuda", True, asked_for=False, quick=True).trial["image_size"] == 128
    assert family_of("tiny_cnn", "cpu", False, asked_for=False, quick=True).trial == {"image_size": 48}
    assert family_of("vit_b_16", "cuda", True, quick=True).trial["image_size"] == 224


def test_every_classifier_of_torchvision_has_an_optimizer_and_the_size_that_its_weights_are_for() -> None:
    from torchvision import models as zoo

    sizes: dict[str, Any] = {}
    for name in zoo.list_models(module=zoo):
        crop = zoo.get_model_weights(name).DEFAULT.transforms().crop_size[0]
        if family_of(name, "cuda", True).trial["image_size"] != crop:
            sizes[name] = crop
    # Both take 224 px, too: the one's weights are of another size, the other's are of that network at 384 px.
    assert sizes == {"vit_h_14": 518, "regnet_y_128gf": 384}
    assert {optimizer_for(name) for name in ("resnet34", "resnext50_32x4d")} == {"sgd"}
    assert {optimizer_for(name) for name in ("regnet_y_400mf", "vgg11", "mine.py:resnet", "tiny_cnn")} == {"adamw"}


def test_shipped_spaces_of_families_hold_what_is_usual_to_try_first() -> None:
    from tune_cropshield.config.families import SPACES
    from tune_cropshield.config.space_file import load_space
    from tune_cropshield.config.starts import family_starts

    for (optimizer, fine_tuned), name in SPACES.items():
        space = load_space(Path(shipped_spaces()[name]))
        assert (space.trial_config().optimizer, bool(space.trial_config().pretrained)) == (optimizer, fine_tuned)
        for start in family_starts(optimizer, fine_tuned):
            assert space.space["lr"].holds(start["lr"]) and space.space["weight_decay"].holds(start["weight_decay"])
