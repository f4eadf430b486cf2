"""Are the copies of photographs found, nothing else, and how fast?

    python benchmarks/found_groups.py --data LEAVES --out OUT                 # 20,000 photographs in the second part
    python benchmarks/found_groups.py --data LEAVES --out OUT --count 2000

First part: of every photograph in LEAVES, one copy is made by each of CHANGES. Nothing in their names tells which are
copies. For each kind of copy, all photographs and these copies are looked through: recall is the share of the copies
that are found beside their photograph, precision the share of the pairs found that are a photograph and its copy.

Second part: `--count` photographs of 256 px are written to a temporary folder, as JPEG of quality 90. Nine tenths are
windows of 60 to 75 % of the side of one of the LEAVES, each at a place of its own and 0.8 to 1.2 times as bright; the
others are copies of some of these by the changes of the first part. The program reads the folder as a search does: the
files are hashed and decoded into a store of 64 px, and copies are looked for; then the store is opened again.

Prints a JSON line per result, and writes them to OUT/found_groups.jsonl. Nothing is trained.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from environment import environment
from PIL import Image, ImageOps

from tune_cropshield.data.decode import decode_rgb
from tune_cropshield.data.folder import scan_folder
from tune_cropshield.data.listing import photographs_below
from tune_cropshield.data.near_copies import groups_by_look, thumbnail
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.data.store import open_store
from tune_cropshield.device import num_cores

SIDE = 256  # px, of the photographs of the second part
COPIES = 10  # one in so many photographs of the second part is copied


def compressed(photograph: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    photograph.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB")


def resized(photograph: Image.Image, factor: float) -> Image.Image:
    return photograph.resize((round(photograph.width * factor), round(photograph.height * factor)))


Change = Callable[[Image.Image], Image.Image]
CHANGES: dict[str, Change] = {
    "turned by 90 degrees": lambda photograph: photograph.transpose(Image.Transpose.ROTATE_90),
    "turned by 180 degrees": lambda photograph: photograph.transpose(Image.Transpose.ROTATE_180),
    "turned by 270 degrees": lambda photograph: photograph.transpose(Image.Transpose.ROTATE_270),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
    "half the size": partial(resized, factor=0.5),
    "1.7 times the size": partial(resized, factor=1.7),
    "JPEG of quality 60": partial(compressed, quality=60),
    "mirrored, turned, half the size, JPEG of quality 60": lambda photograph: compressed(
        resized(ImageOps.mirror(photograph).transpose(Image.Transpose.ROTATE_90), 0.5), 60
    ),
}


def pairs_of(groups: Sequence[Sequence[int]]) -> set[tuple[int, int]]:
    return {(one, other) for group in groups for one in group for other in group if one < other}


def found_copies(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yields recall and precision of each kind of copy, and of all kinds together."""
    originals = [decode_rgb(path) for path in paths]
    count, small = len(originals), [thumbnail(photograph) for photograph in originals]
    by_itself = pairs_of(groups_by_look(np.stack(small)))
    yield {"part": "no copies", "photographs": count, "pairs_found": len(by_itself)}
    changed: dict[str, list[Any]] = {}
    for name, change in CHANGES.items():
        changed[name] = [thumbnail(change(photograph)) for photograph in originals]
        found = pairs_of(groups_by_look(np.stack([*small, *changed[name]])))
        yield judged(name, count, found, {(index, count + index) for index in range(count)})
    every = np.stack([*small, *(one for name in CHANGES for one in changed[name])])
    family = [[index + count * kind for kind in range(len(CHANGES) + 1)] for index in range(count)]
    yield judged("all of these at once", count, pairs_of(groups_by_look(every)), pairs_of(family))


def judged(name: str, count: int, found: set[tuple[int, int]], right: set[tuple[int, int]]) -> dict[str, Any]:
    hits = len(found & right)
    return {
        "part": "copies",
        "copies": name,
        "photographs": count,
        "pairs": len(right),
        "pairs_found": len(found),
        "recall": round(hits / len(right), 5),
        "precision": round(hits / max(len(found), 1), 5),
    }


def write_photograph(number: int, paths: Sequence[Path], folder: Path) -> None:
    """Writes photograph `number` of the second part: a window of a leaf, or a copy of an earlier one."""
    generator = np.random.default_rng(number)
    leaf = decode_rgb(paths[number % len(paths)])
    side = round(leaf.width * generator.uniform(0.6, 0.75))
    left, top = generator.integers(leaf.width - side, size=2).tolist()
    window = leaf.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
    brightness = generator.uniform(0.8, 1.2)
    photograph = window.point(lambda level: min(255, round(brightness * level)))
    photograph.save(folder / f"class{number % 15:02d}" / f"{number:06d}.jpg", quality=90)
    if number % COPIES == 0:
        change = list(CHANGES.values())[number // COPIES % len(CHANGES)]
        change(photograph).save(folder / f"class{number % 15:02d}" / f"c{number:06d}.jpg", quality=90)


def timed(paths: Sequence[Path], count: int) -> dict[str, Any]:
    """Returns the seconds that `count` photographs take, and what was found among them."""
    with tempfile.TemporaryDirectory() as place:
        folder, cache = Path(place) / "photographs", Path(place) / "cache"
        for name in range(15):
            (folder / f"class{name:02d}").mkdir(parents=True)
        originals = round(count / (1 + 1 / COPIES))
        with ProcessPoolExecutor(num_cores()) as pool:
            list(pool.map(partial(write_photograph, paths=paths, folder=folder), range(originals), chunksize=64))
        took: dict[str, float] = {}

        def clocked(name: str, call: Callable[[], Any]) -> Any:
            began = time.perf_counter()
            result = call()
            took[name] = round(time.perf_counter() - began, 2)
            return result

        preparation = Preparation(64)
        scanned = clocked("list_and_hash_s", lambda: scan_folder(folder, cache / "digests.json"))
        store = clocked("decode_s", lambda: open_store(scanned, preparation, cache))
        groups = clocked("look_for_copies_s", store.groups_by_look)
        scanned = clocked("list_again_s", lambda: scan_folder(folder, cache / "digests.json"))
        store = clocked("open_again_s", lambda: open_store(scanned, preparation, cache))
        again = clocked("read_copies_again_s", store.groups_by_look)
        assert again == groups
        place_of = {Path(path).stem: index for index, path in enumerate(store.paths)}
        copied = [name for name in place_of if name.startswith("c")]
        right = {(min(pair), max(pair)) for name in copied for pair in [(place_of[name], place_of[name[1:]])]}
        found = judged("a tenth", len(store), pairs_of(groups), right)
        return {**found, "part": "time", "side_px": SIDE, **took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of leaf photographs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20_000, help="photographs of the second part")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    paths = photographs_below(args.data)[0]
    about = environment()
    with (args.out / "found_groups.jsonl").open("w", encoding="utf-8") as file:
        for line in (*found_copies(paths), timed(paths, args.count)):
            print(json.dumps({**line, **about}), flush=True)
            file.write(json.dumps({**line, **about}) + "\n")


if __name__ == "__main__":
    main()
