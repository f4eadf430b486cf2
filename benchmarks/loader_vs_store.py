"""Images per second of one core: the stock loader, which decodes every photograph every epoch, against our store.

    python benchmarks/loader_vs_store.py --data leaves/ --image-size 160 [--threads 1] [--source-size 256]

Everything runs in one process on `--threads` threads, in turns. What is compared:

  stock                            ImageFolder and the guide's transforms as a DataLoader process runs them: JPEG to
                                   augmented float tensor
  stock, decode only               ImageFolder and ToTensor: what no choice of transforms can save
  store, gather                    ours, what the host does for a GPU: uint8 pictures gathered from the memory-mapped
                                   store (augmented on the device)
  store, gather + augment (cpu)    ours on a machine without a GPU: both on the same core
  store, gather + augment (cuda)   where there is a GPU: pictures on the device, to the augmented tensor there

The first and the third are what a core does for one image where there is a GPU, the first and the fourth where there is
none. Rows of the host alone are images per second of CPU time, which other programs on the machine hardly touch; the
row with cuda goes by the clock. One JSON line per row: the median of `--repeats`, and the ratio to the stock row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from environment import environment
from PIL import Image
from stock_recipe import training_transform
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.augment import PRESETS, augment
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.data.generated import draw_leaves

PRESET = PRESETS["moderate"]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="photographs; left out, synthetic leaves of 256 px")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument(
        "--source-size",
        type=int,
        help="first write the photographs anew at this side, as JPEG: what a camera delivers is larger",
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--images", type=int, default=512, help="in each timing of the stock loader; more of the store's"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or draw_leaves(Path(folder) / "leaves", classes=6, per_class=90, image_size=256)
        if arguments.source_size:
            data = resized(data, Path(folder) / "resized", arguments.source_size, arguments.images)
        rows = measure(data, Path(folder) / "cache", arguments)
    stock = statistics.median(rows["stock"])
    settings = {name: vars(arguments)[name] for name in ("image_size", "source_size", "batch", "threads", "repeats")}
    for name, speeds in rows.items():
        speed = statistics.median(speeds)
        result = {
            "benchmark": "loader_vs_store",
            "what": name,
            "images_per_s": round(speed),
            "ratio_to_stock": round(speed / stock, 1),
        }
        print(json.dumps(result | settings | environment()), flush=True)


def measure(data: Path, cache: Path, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Returns images/s of every repeat, by row."""
    size, batch = arguments.image_size, arguments.batch
    stock = ImageFolder(str(data), training_transform(size))
    decoded = ImageFolder(str(data), transforms.ToTensor())
    order = torch.randperm(len(stock), generator=torch.Generator().manual_seed(0))
    some = order[: arguments.images].tolist()
    opened = open_data(DataConfig(dir=str(data)), {size}, cache)
    on_cpu = DeviceData(opened, torch.device("cpu"))

    def gather(feeding: DeviceData, device: torch.device | None, times: int) -> Callable[[], int]:
        """times: how often the chosen number of images is gathered in one timing, which should not be too short."""
        batches = torch.randint(len(opened.store), (times * arguments.images,)).split(batch)

        def run() -> int:
            images = 0
            for epoch, (part, pictures) in enumerate(zip(batches, feeding.feed(size).stream(batches), strict=True)):
                if device is not None:
                    augment(pictures, part.to(device), preset=PRESET, out_size=size, seed=0, epoch=epoch)
                images += len(part)
            return images

        return run

    def one_by_one(folder: ImageFolder) -> Callable[[], int]:
        return lambda: sum(len(folder[index][0]) > 0 for index in some)

    work = {
        "stock": one_by_one(stock),
        "stock, decode only": one_by_one(decoded),
        "store, gather": gather(on_cpu, None, 32),
        "store, gather + augment (cpu)": gather(on_cpu, torch.device("cpu"), 2),
    }
    if torch.cuda.is_available():
        cuda = torch.device("cuda")
        work["store, gather + augment (cuda)"] = gather(DeviceData(opened, cuda, resident_bytes=2**34), cuda, 32)
    rows: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(arguments.repeats + 1):
        for name, run in work.items():
            clock = time.perf_counter if "cuda" in name else time.process_time
            started = clock()
            images = run()
            if "cuda" in name:
                torch.cuda.synchronize()
            if turn:  # the first warms up
                rows[name].append(images / (clock() - started))
    return rows


def resized(source: Path, target: Path, side: int, most: int) -> Path:
    """Writes up to `most` photographs of `source` at `side` x `side` px, as JPEG of quality 90, and returns their
    folder.
    """
    classes = sorted(path for path in source.iterdir() if path.is_dir())
    for of_class in classes:
        (target / of_class.name).mkdir(parents=True)
        for path in sorted(of_class.iterdir())[: max(most // len(classes), 12)]:
            with Image.open(path) as image:
                image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC).save(
                    target / of_class.name / f"{path.stem}.jpg", quality=90
                )
    return target


if __name__ == "__main__":
    main()
