"""How many images per second are augmented: by us, by torchvision's transforms.v2, and by kornia where it is installed.

    python benchmarks/augmentation.py                                  # one CPU thread, 64 px, and CUDA if there
    python benchmarks/augmentation.py --size 224 --batch 64 --threads 4
    python3 -m uv run --group bench python benchmarks/augmentation.py  # with kornia

Prints one JSON line per result: medians over `--repeats` timings after warming up, and the bare training step of
tiny_cnn beside them. A step is taken between timings, as in training: it leaves neither the caches nor the allocator as
it found them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from tune_cropshield.data.augment import PRESETS, Preset, augment
from tune_cropshield.data.mixing import Mixing, mix
from tune_cropshield.data.preparation import IMAGENET_MEAN, IMAGENET_STD
from tune_cropshield.training.models import build_model


def torchvision_transform(preset: Preset, size: int) -> v2.Transform:
    """Returns what torchvision offers for `preset`: uint8 (3, H, W) to a normalised float picture."""
    steps: list[v2.Transform] = [
        v2.RandomResizedCrop(
            size, scale=(preset.crop_area, 1.0), ratio=(1 / preset.crop_aspect, preset.crop_aspect), antialias=True
        ),
        v2.RandomHorizontalFlip(preset.mirror),
        v2.RandomVerticalFlip(preset.upside_down),
        v2.RandomRotation(preset.rotation_degrees, interpolation=v2.InterpolationMode.BILINEAR),
        v2.ColorJitter(preset.brightness, preset.contrast, preset.saturation, preset.hue),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    if preset.erase:
        steps.append(v2.RandomErasing(preset.erase, preset.erase_area, (1 / preset.erase_aspect, preset.erase_aspect)))
    return v2.Compose(steps)


def kornia_transform(preset: Preset, size: int) -> Callable[[Tensor], Tensor] | None:
    """Returns kornia's batch pipeline on float pictures (B, 3, H, W) in [0, 1], or None where kornia is not
    installed.
    """
    try:
        K = importlib.import_module("kornia.augmentation")
    except ImportError:
        return None
    steps = [
        K.RandomResizedCrop(
            (size, size), scale=(preset.crop_area, 1.0), ratio=(1 / preset.crop_aspect, preset.crop_aspect)
        ),
        K.RandomHorizontalFlip(p=preset.mirror),
        K.RandomVerticalFlip(p=preset.upside_down),
        K.RandomRotation(preset.rotation_degrees, p=1.0),
        K.ColorJitter(preset.brightness, preset.contrast, preset.saturation, preset.hue, p=1.0),
        K.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)),
    ]
    if preset.erase:
        steps.append(K.RandomErasing(preset.erase_area, (1 / preset.erase_aspect, preset.erase_aspect), p=preset.erase))
    pipeline: Callable[[Tensor], Tensor] = K.AugmentationSequential(*steps, data_keys=["input"])
    return pipeline


def training_step(batch: int, device: torch.device) -> Callable[[Tensor], None]:
    """Returns one bare tiny_cnn update on a given batch: fp32, channels_last, fused AdamW."""
    model = build_model("tiny_cnn", 6).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    labels = torch.arange(batch, device=device) % 6

    def step(images_BCHW: Tensor) -> None:
        torch.autograd.backward(F.cross_entropy(model(images_BCHW), labels))
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(
    work: Callable[[], Tensor], device: torch.device, repeats: int, between: Callable[[Tensor], None] | None = None
) -> float:
    """Returns the median time of `work`, its results handed to `between` outside the clock."""
    times = []
    # One thread's CPU time is what it would take on a quiet machine; other programs hardly touch it.
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    for turn in range(repeats + 3):
        start = clock()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if turn >= 3:
            times.append(clock() - start)
        if between is not None:
            between(result)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="side of the augmented pictures; the store is 8/7 of it")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    stored = round(args.size * 8 / 7)
    images = torch.randint(
        0, 256, (args.batch, stored, stored, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    root = Path(__file__).resolve().parents[1]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()
    versions = {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "commit": commit,
    }
    settings = {
        "size": args.size,
        "stored": stored,
        "batch": args.batch,
        "threads": args.threads,
        "repeats": args.repeats,
    }

    def show(what: str, preset: str, device: torch.device, taken: float) -> None:
        name = (
            torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
        )
        figures = {"images_per_s": round(args.batch / taken, 1), "us_per_image": round(taken / args.batch * 1e6, 2)}
        result = {"what": what, "preset": preset, "device": device.type, "hardware": name}
        print(json.dumps(result | figures | settings | versions), flush=True)

    for device in [torch.device("cpu")] + ([torch.device("cuda", 0)] if torch.cuda.is_available() else []):
        here, samples = images.to(device), torch.arange(args.batch, device=device)
        step = training_step(args.batch, device)

        def ours(preset: Preset, here: Tensor = here, samples: Tensor = samples) -> Tensor:
            return augment(here, samples, preset=preset, out_size=args.size, seed=0, epoch=0)

        def stepped(batch: Tensor, step: Callable[[Tensor], None] = step) -> Tensor:
            step(batch)
            return batch

        ready = ours(PRESETS["moderate"])
        show(
            "bare tiny_cnn step",
            "-",
            device,
            seconds(lambda ready=ready, stepped=stepped: stepped(ready), device, args.repeats),
        )  # type: ignore[misc]
        for name, preset in PRESETS.items():
            show(
                "ours", name, device, seconds(lambda preset=preset, ours=ours: ours(preset), device, args.repeats, step)
            )  # type: ignore[misc]

        def mixed(ready: Tensor = ready, samples: Tensor = samples) -> Tensor:
            return mix(ready, samples, samples, mixing=Mixing(0.2, 1.0), seed=0, epoch=0)[0]

        show("ours: mixup and cutmix", "-", device, seconds(mixed, device, args.repeats, step))
        for name, preset in PRESETS.items():
            pipeline = kornia_transform(preset, args.size) if name != "none" else None
            if pipeline is not None:

                def kornia(pipeline: Callable[[Tensor], Tensor] = pipeline, here: Tensor = here) -> Tensor:
                    return pipeline(here.permute(0, 3, 1, 2).float() / 255)

                show("kornia", name, device, seconds(kornia, device, args.repeats, step))
            if name != "none" and device.type == "cpu":
                composed = torchvision_transform(preset, args.size)

                def one_by_one(transform: v2.Transform = composed, here: Tensor = here) -> Tensor:
                    return torch.stack([transform(image) for image in here.permute(0, 3, 1, 2).contiguous()])

                show("torchvision v2, per image", name, device, seconds(one_by_one, device, args.repeats, step))


if __name__ == "__main__":
    main()
