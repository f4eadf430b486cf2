"""A folder that has changed a little: pictures of earlier stores are copied, and the store is the same to the byte as
one built from nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import FileIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tune_cropshield.data.digests import instead_of_content
from tune_cropshield.data.folder import ImageFolder, scan_folder
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.data.store import Store, open_store
from tune_cropshield.data.store_files import index_crc32, sampled_crc32

MakeFolder = Callable[[Mapping[str, int]], Path]
SMALL = Preparation(16, "squash")
WHITE, BLACK = 255, 0


def opened(root: Path, cache: Path, preparation: Preparation = SMALL) -> Store:
    return open_store(scan_folder(root, None), preparation, cache, max_bad_share=0.5)


def paint_store(store: Store, level: int) -> None:
    """Gives a store other pictures than its photographs have, so that what is copied from it can be told."""
    images, index = store.path / "images.u8", store.path / "index.json"
    images.write_bytes(bytes([level]) * images.stat().st_size)
    facts = json.loads(index.read_bytes())
    del facts["index_crc32"]
    with FileIO(images) as file:
        facts["images_crc32"] = sampled_crc32(file)
    index.write_text(json.dumps(facts | {"index_crc32": index_crc32(facts)}))


def levels(store: Store) -> dict[str, int | None]:
    """path -> the one level of its picture, None where it has several."""
    return {
        path: int(picture[0, 0, 0]) if len(np.unique(picture)) == 1 else None
        for path, picture in zip(store.paths, store.images.numpy(), strict=True)
    }


def draw(path: Path, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def add(root: Path) -> None:
    draw(root / "a" / "new.png", 99)


def remove(root: Path) -> None:
    (root / "a" / "1.png").unlink()


def rename(root: Path) -> None:
    (root / "a" / "0.png").rename(root / "b" / "zzz.png")


def change(root: Path) -> None:
    draw(root / "a" / "0.png", 99)


def touch(root: Path) -> None:
    for path in root.rglob("*.png"):
        os.utime(path, (0, 0))
    rename(root)


def break_one(root: Path) -> None:
    (root / "b" / "1.png").write_text("not a picture")


def copy_one(root: Path) -> None:
    shutil.copy(root / "a" / "0.png", root / "b" / "copy.png")


@pytest.mark.parametrize(
    ("alter", "decoded_anew"),
    [
        (add, {"a/new.png"}),
        (remove, set()),
        (rename, set()),
        (change, {"a/0.png"}),
        (touch, set()),
        (break_one, set()),
        (copy_one, set()),
    ],
)
def test_only_photographs_that_no_earlier_store_holds_are_decoded(
    make_folder: MakeFolder, tmp_path: Path, alter: Callable[[Path], None], decoded_anew: set[str]
) -> None:
    root = make_folder({"a": 3, "b": 3})
    paint_store(opened(root, tmp_path / "cache"), WHITE)
    alter(root)

    found = levels(opened(root, tmp_path / "cache"))

    assert {path for path, level in found.items() if level is None} == decoded_anew
    assert {level for path, level in found.items() if path not in decoded_anew} == {255}


@pytest.mark.parametrize("alter", [add, remove, rename, change, break_one, copy_one])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_the_store_is_the_same_to_the_byte_as_one_built_from_nothing(
    make_folder: MakeFolder, tmp_path: Path, alter: Callable[[Path], None], fit: str
) -> None:
    root = make_folder({"a": 3, "b": 3})
    draw(root / "b" / "wide.png", 5)
    (root / "a" / "broken.png").write_text("not a picture")
    preparation = Preparation(12, fit)  # type: ignore[arg-type]
    opened(root, tmp_path / "cache", preparation)
    alter(root)

    from_earlier = opened(root, tmp_path / "cache", preparation)
    from_nothing = opened(root, tmp_path / "other", preparation)

    for name in ("images.u8", "thumbnails.u8", "index.json"):
        assert (from_earlier.path / name).read_bytes() == (from_nothing.path / name).read_bytes()


def test_pictures_of_another_size_or_fit_are_not_taken(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 2, "b": 2})
    paint_store(opened(root, tmp_path / "cache"), WHITE)

    for other in (Preparation(12, "squash"), Preparation(16, "pad"), Preparation(14, "crop")):
        assert set(levels(opened(root, tmp_path / "cache", other)).values()) == {None}


def test_several_earlier_stores_are_drawn_on(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 2, "b": 2})
    draw(root / "a" / "left.png", 7)
    paint_store(opened(root, tmp_path / "cache"), WHITE)
    other = tmp_path / "second"
    (other / "a").mkdir(parents=True)
    (other / "b").mkdir()
    draw(other / "a" / "right.png", 8)
    draw(other / "b" / "beside.png", 9)
    paint_store(opened(other, tmp_path / "cache"), BLACK)
    shutil.copy(other / "a" / "right.png", root / "b")
    (root / "a" / "left.png").rename(root / "b" / "left.png")

    found = levels(opened(root, tmp_path / "cache"))

    assert found == {
        "a/0.png": 255,
        "a/1.png": 255,
        "b/0.png": 255,
        "b/1.png": 255,
        "b/left.png": 255,
        "b/right.png": 0,
    }


def shorten(path: Path) -> None:
    with open(path / "images.u8", "r+b") as file:
        file.truncate(100)


def flip(path: Path) -> None:
    content = bytearray((path / "images.u8").read_bytes())
    content[50] ^= 0x55
    (path / "images.u8").write_bytes(content)


def cut_index(path: Path) -> None:
    (path / "index.json").write_bytes((path / "index.json").read_bytes()[:-20])


def drop_thumbnails(path: Path) -> None:
    (path / "thumbnails.u8").unlink()


def of_another_decoder(path: Path) -> None:
    facts = json.loads((path / "index.json").read_bytes()) | {"decoder": "1+pillow1.0"}
    del facts["index_crc32"]
    (path / "index.json").write_text(json.dumps(facts | {"index_crc32": index_crc32(facts)}))


@pytest.mark.parametrize("damage", [shorten, flip, cut_index, drop_thumbnails, of_another_decoder])
def test_nothing_is_taken_from_a_store_that_is_not_whole_or_of_another_decoder(
    make_folder: MakeFolder, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    root = make_folder({"a": 3, "b": 3})
    store = opened(root, tmp_path / "cache")
    paint_store(store, WHITE)
    damage(store.path)
    add(root)

    assert set(levels(opened(root, tmp_path / "cache")).values()) == {None}


def test_what_a_build_that_was_killed_left_is_not_taken(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 3, "b": 3})
    store = opened(root, tmp_path / "cache")
    paint_store(store, WHITE)
    store.path.rename(tmp_path / "cache" / f"{store.path.name}.tmp-1-aaaa")
    add(root)

    assert set(levels(opened(root, tmp_path / "cache")).values()) == {None}


@pytest.mark.skipif(os.name != "posix", reason="Windows removes no file that is open")
def test_a_store_that_is_removed_while_it_is_drawn_on_is_read_to_its_end(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    root = make_folder({"a": 30, "b": 30})
    store = opened(root, tmp_path / "cache")
    paint_store(store, WHITE)
    add(root)

    def remove_it(done: int, total: int) -> None:
        if done == 1:
            shutil.rmtree(store.path)

    found = levels(open_store(scan_folder(root, None), SMALL, tmp_path / "cache", progress=remove_it, workers=2))

    assert {path for path, level in found.items() if level is None} == {"a/new.png"}


def test_a_file_that_is_known_by_its_path_since_it_could_not_be_read_is_never_taken_from_a_store(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    root = make_folder({"a": 3, "b": 3})

    def scanned() -> ImageFolder:
        """The folder, as if a/0.png could be read only after it was scanned."""
        found = scan_folder(root, None)
        unread = replace(found.files[0], digest=instead_of_content(root, "a/0.png"))
        return replace(found, files=(unread, *found.files[1:]))

    paint_store(open_store(scanned(), SMALL, tmp_path / "cache"), WHITE)
    add(root)

    found = levels(open_store(scanned(), SMALL, tmp_path / "cache"))

    assert {path for path, level in found.items() if level is None} == {"a/0.png", "a/new.png"}
