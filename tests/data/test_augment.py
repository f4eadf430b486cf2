"""Augmented pictures depend on (seed, epoch, sample) alone, and change as far as the preset says and no further."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tune_cropshield.data.augment import (
    PRESETS,
    Changes,
    Preset,
    augment,
    colour_map,
    crop_map,
    draw_changes,
    evaluation_view,
    kept_pixels,
)
from tune_cropshield.data.preparation import IMAGENET_MEAN, IMAGENET_STD

MANY = torch.arange(5_000)
CHANGING = [name for name in PRESETS if name != "none"]


def pictures(count: int, height: int, width: int | None = None) -> Tensor:
    shape = (count, height, height if width is None else width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def levels(images_BCHW: Tensor) -> Tensor:
    """Returns normalised pictures as (B, H, W, C) levels 0..255 again."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (images_BCHW.float().permute(0, 2, 3, 1) * std + mean) * 255


def unchanged(**fields: float) -> Changes:
    values = dict.fromkeys(Changes._fields, 0.0)
    values |= dict.fromkeys(("area", "mirror", "upside_down", "brightness", "contrast", "saturation"), 1.0)
    return Changes(**{name: torch.full((1,), value) for name, value in (values | fields).items()})


def run(
    images_BHWC: Tensor,
    preset: Preset,
    size: int,
    seed: int = 1,
    epoch: int | Tensor = 2,
    samples: Tensor | None = None,
) -> Tensor:
    samples = torch.arange(len(images_BHWC)) if samples is None else samples
    return augment(images_BHWC, samples, preset=preset, out_size=size, seed=seed, epoch=epoch)


@pytest.mark.parametrize("name", PRESETS)
def test_a_picture_does_not_depend_on_its_batch(name: str) -> None:
    images, samples = pictures(8, 18), torch.arange(100, 108)
    whole = run(images, PRESETS[name], 16, samples=samples)
    halves = torch.cat(
        [run(images[part], PRESETS[name], 16, samples=samples[part]) for part in (slice(0, 4), slice(4, 8))]
    )
    backwards = run(images.flip(0), PRESETS[name], 16, samples=samples.flip(0)).flip(0)
    alone = torch.cat([run(images[i : i + 1], PRESETS[name], 16, samples=samples[i : i + 1]) for i in range(8)])
    for other in (halves, backwards, alone):
        torch.testing.assert_close(other, whole, rtol=0, atol=1e-6)


def test_more_pictures_than_a_cpu_takes_at_once_all_come_out() -> None:
    images = pictures(37, 9)
    whole = run(images, PRESETS["aggressive"], 8)
    torch.testing.assert_close(
        whole[30:], run(images[30:], PRESETS["aggressive"], 8, samples=torch.arange(30, 37)), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", CHANGING)
def test_other_samples_epochs_and_seeds_give_other_pictures(name: str) -> None:
    image = pictures(1, 18).expand(4, -1, -1, -1)
    first = run(image, PRESETS[name], 16)
    assert not torch.equal(first[0], first[1])
    for other in (run(image, PRESETS[name], 16, epoch=3), run(image, PRESETS[name], 16, seed=2)):
        assert all(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(first, run(image, PRESETS[name], 16))


def test_an_epoch_in_a_tensor_gives_the_pictures_of_an_int() -> None:
    images = pictures(4, 18)
    assert torch.equal(
        run(images, PRESETS["moderate"], 16, epoch=3), run(images, PRESETS["moderate"], 16, epoch=torch.tensor(3))
    )


def test_preset_none_is_the_evaluation_view() -> None:
    images = pictures(3, 18)
    assert torch.equal(run(images, PRESETS["none"], 16), evaluation_view(images, 16))
    assert torch.equal(run(images, PRESETS["none"], 18), evaluation_view(images, 18))


def test_a_preset_whose_draws_change_nothing_gives_the_evaluation_view() -> None:
    images = pictures(3, 16)
    certain = Preset(erase=1.0, erase_area=(0.0, 0.0))  # takes the way of every changing preset, and hides nothing
    torch.testing.assert_close(run(images, certain, 16), evaluation_view(images, 16), rtol=0, atol=1e-5)


def test_evaluation_view_normalises_black_white_and_grey_as_imagenet() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8)[:, None, None, None].expand(3, 4, 4, 3)
    expected = torch.tensor([[-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.6400], [-1.2445, -1.1429, -0.9156]])
    torch.testing.assert_close(evaluation_view(images, 4)[:, :, 1, 2], expected, rtol=0, atol=1e-4)


def test_evaluation_view_is_the_middle_of_the_picture_pixel_by_pixel() -> None:
    images = pictures(2, 40)
    assert torch.equal(levels(evaluation_view(images, 32)).round().to(torch.uint8), images[:, 4:36, 4:36])
    assert torch.equal(levels(evaluation_view(images, 40)).round().to(torch.uint8), images)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pictures_are_channels_last_in_the_dtype_and_size_asked_for(name: str, dtype: torch.dtype) -> None:
    out = augment(pictures(2, 18, 20), torch.arange(2), preset=PRESETS[name], out_size=16, seed=0, epoch=0, dtype=dtype)
    assert out.shape == (2, 3, 16, 16)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert out.isfinite().all()


def test_a_certain_mirror_swaps_left_and_right() -> None:
    images = pictures(3, 16)
    torch.testing.assert_close(
        run(images, Preset(mirror=1.0), 16), evaluation_view(images.flip(2), 16), rtol=0, atol=2e-4
    )


def test_a_certain_upside_down_swaps_top_and_bottom() -> None:
    images = pictures(3, 16)
    torch.testing.assert_close(
        run(images, Preset(upside_down=1.0), 16), evaluation_view(images.flip(1), 16), rtol=0, atol=2e-4
    )


def test_half_of_the_samples_are_mirrored_at_probability_one_half() -> None:
    mirrored = crop_map(draw_changes(Preset(mirror=0.5), MANY, 0, 0), 1.0)[:, 0, 0] < 0
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert not (crop_map(draw_changes(Preset(rotation_degrees=5), MANY, 0, 0), 1.0)[:, 0, 0] < 0).any()


@pytest.mark.parametrize(("name", "degrees"), [("conservative", 5), ("moderate", 15), ("aggressive", 20)])
def test_rotation_angles_fill_their_bounds_and_stay_within(name: str, degrees: float) -> None:
    maps = crop_map(draw_changes(PRESETS[name], MANY, 0, 0), 1.0)
    found = torch.rad2deg(torch.atan(maps[:, 1, 0] / maps[:, 0, 0]))  # atan: the same for a mirrored sample
    assert found.abs().max() <= degrees * 1.0001
    assert found.min() < -0.98 * degrees
    assert found.max() > 0.98 * degrees


def test_a_quarter_turn_turns_the_picture_by_a_quarter() -> None:
    images = pictures(1, 4)
    place = crop_map(unchanged(angle=math.pi / 2), 1.0)[0] @ torch.tensor([0.75, -0.25, 1.0])
    torch.testing.assert_close(place, torch.tensor([0.25, 0.75]), rtol=0, atol=1e-6)
    certain = replace(Preset(), rotation_degrees=90.0)
    angles = torch.rad2deg(draw_changes(certain, torch.arange(2000), 0, 0).angle)
    sample = int((angles - 90).abs().argmin())
    turned = run(images, certain, 4, seed=0, epoch=0, samples=torch.tensor([sample]))
    torch.testing.assert_close(turned, evaluation_view(torch.rot90(images, 1, (1, 2)), 4), rtol=0, atol=0.05)


def test_a_circle_stays_a_circle_when_a_wide_picture_turns() -> None:
    maps = crop_map(unchanged(angle=0.3), 2.0)[0]
    steps = maps[:, :2] * torch.tensor([[2.0], [1.0]])  # in units of half the height: the picture is 2 wide, 1 high
    assert steps[:, 0].norm().item() == pytest.approx(
        2.0
    )  # the result's x spans the width, its y the height, at right angles
    assert steps[:, 1].norm().item() == pytest.approx(1.0)
    assert (steps[:, 0] @ steps[:, 1]).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", CHANGING)
def test_a_crop_never_leaves_the_picture_before_it_turns(name: str) -> None:
    preset = replace(PRESETS[name], rotation_degrees=0.0)
    maps = crop_map(draw_changes(preset, MANY, 0, 0), 1.0)
    corners = torch.tensor([[-1.0, -1, 1, 1], [-1, 1, -1, 1], [1, 1, 1, 1]])
    assert (maps @ corners).abs().max() <= 1 + 1e-6
    area = maps[:, 0, 0].abs() * maps[:, 1, 1].abs()
    aspect = maps[:, 0, 0].abs() / maps[:, 1, 1].abs()
    assert (
        area.min() > preset.crop_area / preset.crop_aspect**0.5 - 1e-6
    )  # a side cut to the picture's costs at most this much area
    assert area.max() > 0.97
    assert aspect.max() <= preset.crop_aspect + 1e-5
    assert aspect.min() >= 1 / preset.crop_aspect - 1e-5


def test_a_rotation_shows_no_black_corners() -> None:
    white = torch.full((32, 18, 18, 3), 255, dtype=torch.uint8)
    torch.testing.assert_close(
        levels(run(white, Preset(rotation_degrees=45.0), 16)), torch.full((32, 16, 16, 3), 255.0), rtol=0, atol=0.01
    )


def test_neutral_colours_are_the_normalisation_alone() -> None:
    expected = torch.tensor([[1 / 58.395, 0, 0, -2.1179], [0, 1 / 57.12, 0, -2.0357], [0, 0, 1 / 57.375, -1.8044]])
    torch.testing.assert_close(colour_map(unchanged())[0], expected, rtol=0, atol=5e-5)


def coloured(rgb: tuple[int, int, int], **fields: float) -> list[int]:
    normalised = colour_map(unchanged(**fields))[0] @ torch.tensor([*rgb, 1.0])
    return [int(v) for v in levels(normalised.view(1, 3, 1, 1)).flatten().round()]


def test_brightness_multiplies_every_colour() -> None:
    assert coloured((100, 200, 50), brightness=1.2) == [120, 240, 60]


def test_contrast_stretches_about_mid_grey() -> None:
    assert coloured((100, 200, 50), contrast=0.5) == [114, 164, 89]


def test_saturation_zero_leaves_the_grey_of_the_eye() -> None:
    assert coloured((100, 200, 50), saturation=0.0) == [153, 153, 153]


def test_hue_turns_colours_and_leaves_grey_alone() -> None:
    assert coloured((90, 90, 90), hue=1.0) == [90, 90, 90]
    red, green, blue = coloured((100, 200, 50), hue=2 * math.pi / 3)
    assert 0.299 * red + 0.587 * green + 0.114 * blue == pytest.approx(153, abs=1)  # as bright as before
    assert (red, green, blue) != (100, 200, 50)
    assert coloured((100, 200, 50), hue=2 * math.pi) == [100, 200, 50]


def test_a_small_positive_hue_moves_green_as_a_small_negative_one_moves_it_back() -> None:
    there = coloured((60, 160, 70), hue=0.1)
    back = coloured((there[0], there[1], there[2]), hue=-0.1)
    assert max(abs(a - b) for a, b in zip(back, (60, 160, 70), strict=True)) <= 1


@pytest.mark.parametrize("name", CHANGING)
def test_jitter_stays_within_the_preset(name: str) -> None:
    preset, changes = PRESETS[name], draw_changes(PRESETS[name], MANY, 0, 0)
    for field in ("brightness", "contrast", "saturation"):
        assert (getattr(changes, field) - 1).abs().max() <= getattr(preset, field) + 1e-6
    assert changes.hue.abs().max() <= 2 * math.pi * preset.hue + 1e-6


def test_erased_areas_lie_within_bounds_for_a_quarter_of_the_samples() -> None:
    size = 100
    centres = torch.linspace(-0.99, 0.99, size)
    hidden = 1 - kept_pixels(draw_changes(PRESETS["aggressive"], MANY[:2000], 0, 0), centres).mean(dim=(1, 2, 3))
    erased = hidden[hidden > 0]
    assert len(erased) / 2000 == pytest.approx(0.25, abs=0.04)
    assert erased.min() > 0.015  # 0.02, less a row and a column of pixels
    assert erased.max() < 0.165
    assert erased.mean().item() == pytest.approx(0.085, abs=0.005)


def test_an_erased_rectangle_is_the_mean_colour_and_the_rest_is_untouched() -> None:
    images = pictures(1, 16)
    kept = kept_pixels(unchanged(erase=1, erase_area=0.25), torch.linspace(-15 / 16, 15 / 16, 16))
    assert int(kept.sum()) == 192
    assert kept[0, 0, 4:12, 4:12].max() == 0
    erased = run(images, Preset(erase=1.0, erase_area=(0.25, 0.25), erase_aspect=1.0), 16)
    hidden = (erased == 0).all(dim=1)
    assert int(hidden.sum()) in range(49, 82)
    shown = ~hidden[:, None].expand_as(erased)
    torch.testing.assert_close(erased[shown], evaluation_view(images, 16)[shown], rtol=0, atol=1e-5)


def test_autocast_does_not_round_the_pictures() -> None:
    images = pictures(2, 18)
    with torch.autocast("cpu", torch.bfloat16):
        inside = run(images, PRESETS["moderate"], 16)
    assert torch.equal(inside, run(images, PRESETS["moderate"], 16))


def test_the_input_is_left_as_it_was() -> None:
    images = pictures(2, 18)
    before = images.clone()
    run(images, PRESETS["aggressive"], 16)
    assert torch.equal(images, before)


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"):  # torch calls this mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        with warnings.catch_warnings(action="ignore"):
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", PRESETS)
def test_a_cuda_graph_draws_each_epoch_anew_without_waiting_and_as_the_cpu_does(name: str) -> None:
    images, samples, preset = pictures(8, 73).cuda(), torch.arange(8).cuda(), PRESETS[name]
    epoch = torch.zeros((), dtype=torch.int64, device="cuda")
    run(images, preset, 64, epoch=epoch, samples=samples)  # the first call copies constants
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        out = run(images, preset, 64, epoch=epoch, samples=samples)
    for number in (5, 6):
        epoch.fill_(number)
        graph.replay()
        assert (out.cpu() - run(images.cpu(), preset, 64, epoch=number)).abs().max() < 0.05
    with waiting_is_an_error():
        run(images, preset, 64, epoch=epoch, samples=samples)
