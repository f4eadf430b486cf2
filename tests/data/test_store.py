from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tune_cropshield.config.places import user_cache_dir
from tune_cropshield.data.folder import scan_folder
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.data.store import Store, open_store
from tune_cropshield.data.store_files import DamagedStore
from tune_cropshield.errors import DataError

MakeFolder = Callable[[Mapping[str, int]], Path]
REPOSITORY = Path(__file__).parents[2]
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and permissions")


def never(done: int, total: int) -> None:
    raise AssertionError("decoded again")


def opened(root: Path, size: int, cache: Path, **options: Any) -> Store:
    """Returns the store of a folder's photographs, squashed to size x size px."""
    return open_store(scan_folder(root, cache / "digests.json"), Preparation(size, "squash"), cache, **options)


def squashed(path: Path, size: int) -> np.ndarray[Any, Any]:
    """Returns a photograph as the store should keep it."""
    return np.asarray(Image.open(path).resize((size, size), Image.Resampling.BILINEAR))


def stores_in(cache: Path) -> list[str]:
    """The folders in the cache: whole stores and leftovers."""
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


def start(code: str, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Starts a Python process with warnings as errors; `opened`, `sys`, `Path` and `time` are there."""
    preamble = """
import sys, time
from pathlib import Path
from tune_cropshield.data.folder import scan_folder
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.data.store import open_store
def opened(root, size, cache, **options):
    return open_store(scan_folder(root, cache / "digests.json"), Preparation(size, "squash"), cache, **options)
"""
    command = [*prefix, sys.executable, "-W", "error", "-c", preamble + code, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_store_holds_every_image_decoded_in_the_order_of_paths(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"rust": 2, "healthy": 3})
    calls: list[tuple[int, int]] = []
    store = opened(root, 16, tmp_path / "cache", progress=lambda done, total: calls.append((done, total)))
    assert store.paths == ("healthy/0.png", "healthy/1.png", "healthy/2.png", "rust/0.png", "rust/1.png")
    assert store.classes == ("healthy", "rust")
    assert store.labels.tolist() == [0, 0, 0, 1, 1]
    assert store.labels.dtype == torch.int64
    assert store.images.shape == (5, 16, 16, 3)
    assert store.images.dtype == torch.uint8
    for pixels, path in zip(store.images, store.paths, strict=True):
        np.testing.assert_array_equal(pixels.numpy(), squashed(root / path, 16))
    assert len(store) == len(store.digests) == 5
    assert store.unreadable == ()
    assert (store.size, store.root) == (16, root)
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert stores_in(tmp_path / "cache") == [store.fingerprint[:16]]


def test_a_second_start_decodes_nothing(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 3, "b": 3})
    first = opened(root, 16, tmp_path / "cache")
    second = opened(root, 16, tmp_path / "cache", progress=never)
    assert second.fingerprint == first.fingerprint
    assert torch.equal(second.images, first.images)


def test_the_number_of_threads_changes_nothing(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 20, "b": 20})
    one, many = (opened(root, 16, tmp_path / f"cache{workers}", workers=workers) for workers in (1, 7))
    assert torch.equal(one.images, many.images)
    assert one.paths == many.paths


def test_a_moved_folder_of_equal_content_shares_its_store(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 3, "b": 3})
    first = opened(root, 16, tmp_path / "cache")
    root.rename(tmp_path / "moved")
    second = opened(tmp_path / "moved", 16, tmp_path / "cache", progress=never)
    assert second.path == first.path
    assert second.root == tmp_path / "moved"
    assert pickle.loads(pickle.dumps(second)).root == tmp_path / "moved"


def rename_image(root: Path) -> None:
    (root / "a" / "0.png").rename(root / "a" / "9.png")


def rename_class(root: Path) -> None:
    (root / "a").rename(root / "c")


def remove_image(root: Path) -> None:
    (root / "a" / "0.png").unlink()


def change_image(root: Path) -> None:
    shutil.copy(root / "a" / "0.png", root / "a" / "1.png")


@pytest.mark.parametrize("change", [rename_image, rename_class, remove_image, change_image])
def test_a_changed_folder_has_another_store(
    make_folder: MakeFolder, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    root = make_folder({"a": 3, "b": 3})
    before = opened(root, 16, tmp_path / "cache")
    change(root)
    after = opened(root, 16, tmp_path / "cache")
    assert after.fingerprint != before.fingerprint
    assert stores_in(tmp_path / "cache") == sorted([before.fingerprint[:16], after.fingerprint[:16]])


def test_another_size_has_another_store(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 3, "b": 3})
    assert opened(root, 16, tmp_path).fingerprint != opened(root, 12, tmp_path).fingerprint


def test_a_store_pickles_as_its_path(make_folder: MakeFolder, tmp_path: Path) -> None:
    store = opened(make_folder({"a": 40, "b": 40}), 32, tmp_path / "cache")
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    assert torch.equal(copy.images, store.images)
    assert torch.equal(copy.labels, store.labels)
    assert (copy.classes, copy.paths, copy.digests, copy.fingerprint) == (
        store.classes,
        store.paths,
        store.digests,
        store.fingerprint,
    )


def test_loading_what_is_no_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(DamagedStore, match="holds no index of a store"):
        Store.load(tmp_path / "nowhere")


# Damage


def shorten_images(path: Path) -> None:
    with (path / "images.u8").open("r+b") as file:
        file.truncate(1000)


def lengthen_images(path: Path) -> None:
    with (path / "images.u8").open("ab") as file:
        file.write(b"\0")


def flip_a_pixel(path: Path) -> None:
    flip_byte(path / "images.u8", 700)


def remove_images(path: Path) -> None:
    (path / "images.u8").unlink()


def remove_index(path: Path) -> None:
    (path / "index.json").unlink()


def cut_index(path: Path) -> None:
    content = (path / "index.json").read_bytes()
    (path / "index.json").write_bytes(content[: len(content) // 2])


def change_a_label(path: Path) -> None:
    """Still JSON, still of the right length: only the checksum can tell."""
    text = (path / "index.json").read_text()
    (path / "index.json").write_text(text.replace('"labels": [0, 0, 0,', '"labels": [0, 1, 0,'))


def change_to_other_json(path: Path) -> None:
    (path / "index.json").write_text("[1, 2, 3]")


def flip_byte(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x55
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        shorten_images,
        lengthen_images,
        flip_a_pixel,
        remove_images,
        remove_index,
        cut_index,
        change_a_label,
        change_to_other_json,
        shutil.rmtree,
    ],
)
def test_a_damaged_store_is_built_again(
    make_folder: MakeFolder, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    root = make_folder({"a": 3, "b": 3})
    store = opened(root, 16, tmp_path / "cache")
    path, expected, labels = store.path, store.images.clone(), store.labels.clone()
    del store  # Windows replaces no file that is mapped
    damage(path)
    with pytest.raises(DamagedStore):
        Store.load(path)
    calls: list[int] = []
    again = opened(root, 16, tmp_path / "cache", progress=lambda done, total: calls.append(done))
    assert calls == [1, 2, 3, 4, 5, 6]
    assert torch.equal(again.images, expected)
    assert torch.equal(again.labels, labels)
    assert stores_in(tmp_path / "cache") == [path.name]


def test_no_flipped_byte_of_the_index_goes_unnoticed(make_folder: MakeFolder, tmp_path: Path) -> None:
    path = opened(make_folder({"a": 2, "b": 2}), 8, tmp_path / "cache").path
    index = path / "index.json"
    original = index.read_bytes()
    for offset in range(0, len(original), 3):
        flip_byte(index, offset)
        with pytest.raises(DamagedStore):
            Store.load(path)
        index.write_bytes(original)
    assert len(Store.load(path)) == 4


# Images that cannot be read


def test_unreadable_images_are_left_out_and_listed(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 5, "b": 5})
    (root / "a" / "1.png").write_text("not a picture")
    (root / "b" / "0.png").write_bytes((root / "b" / "0.png").read_bytes()[:200])
    store = opened(root, 16, tmp_path / "cache", max_bad_share=0.2)
    assert [path for path, _ in store.unreadable] == ["a/1.png", "b/0.png"]
    assert store.unreadable[0][1] == "not an image"
    assert store.paths == ("a/0.png", "a/2.png", "a/3.png", "a/4.png", "b/1.png", "b/2.png", "b/3.png", "b/4.png")
    assert store.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    np.testing.assert_array_equal(store.images[1].numpy(), squashed(root / "a" / "2.png", 16))
    assert opened(root, 16, tmp_path / "cache", max_bad_share=0.2, progress=never).unreadable == store.unreadable


def test_too_many_unreadable_images_are_an_error_that_lists_the_first(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 10, "b": 10})
    for index in range(4):
        (root / "a" / f"{index}.png").write_text("not a picture")
    message = (
        r"^4 of 20 images in .* cannot be read, more than the 5% allowed: "
        r"a/0\.png \(not an image\), a/1\.png \(not an image\), a/2\.png \(not an image\), \.\.\.$"
    )
    with pytest.raises(DataError, match=message):
        opened(root, 16, tmp_path / "cache")
    assert stores_in(tmp_path / "cache") == []
    opened(root, 16, tmp_path / "cache", max_bad_share=0.2)
    with pytest.raises(DataError, match=message):  # the store is there now, and the rule still holds
        opened(root, 16, tmp_path / "cache")


def test_a_class_without_any_readable_image_is_an_error(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 10, "b": 1})
    (root / "b" / "0.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"^no image of 'b' in .* can be read: b/0\.png \(not an image\)$"):
        opened(root, 16, tmp_path / "cache", max_bad_share=0.5)


def test_an_image_that_vanishes_while_building_is_left_out_until_it_is_back(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    root = make_folder({"a": 20, "b": 20})
    victim = root / "b" / "9.png"  # the last one in order; with one thread the fourth from the front is decoded at most

    def remove(done: int, total: int) -> None:
        if done == 1:
            victim.rename(tmp_path / "9.png")

    store = opened(root, 16, tmp_path / "cache", progress=remove, workers=1)
    assert store.unreadable == (("b/9.png", "vanished"),)
    assert len(store) == 39
    del store
    (tmp_path / "9.png").rename(victim)
    again = opened(root, 16, tmp_path / "cache")
    assert again.unreadable == ()
    assert len(again) == 40


# Several processes, killed processes, full disks


@pytest.mark.slow
def test_a_second_process_waits_for_the_first_instead_of_decoding_too(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 10, "b": 10})
    code = """
def tell_and_linger(done, total):
    if done == 1:
        print("building", flush=True)
    time.sleep(0.05)
print(int(opened(Path(sys.argv[1]), 16, Path(sys.argv[2]), progress=tell_and_linger).images.sum()))
"""
    process = start(code, root, tmp_path / "cache")
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    assert len(stores_in(tmp_path / "cache")) == 1  # the unfinished one
    total = int(opened(root, 16, tmp_path / "cache", progress=never).images.sum())
    assert process.communicate(timeout=60) == (f"{total}\n", "")


@posix_only
def test_a_killed_build_leaves_nothing_that_counts_and_is_cleared_away(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 10, "b": 10})
    code = """
def stop_half_way(done, total):
    if done == total // 2:
        print("half", flush=True)
        time.sleep(60)
opened(Path(sys.argv[1]), 16, Path(sys.argv[2]), progress=stop_half_way)
"""
    process = start(code, root, tmp_path / "cache")
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    (leftover,) = stores_in(tmp_path / "cache")
    assert ".tmp-" in leftover

    other_size = opened(
        root, 12, tmp_path / "cache"
    )  # a build of another store clears it as well: nobody holds its lock
    assert stores_in(tmp_path / "cache") == [other_size.path.name]
    store = opened(root, 16, tmp_path / "cache")
    assert len(store) == 20
    np.testing.assert_array_equal(store.images[19].numpy(), squashed(root / store.paths[19], 16))
    assert stores_in(tmp_path / "cache") == sorted([other_size.path.name, store.path.name])


def test_a_running_build_of_another_store_is_not_cleared_away(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 3, "b": 3})

    def build_another(done: int, total: int) -> None:
        if done == 1:
            assert len(opened(root, 12, tmp_path / "cache")) == 6

    assert len(opened(root, 16, tmp_path / "cache", progress=build_another)) == 6


def test_an_interrupted_build_leaves_no_temporary_files(make_folder: MakeFolder, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(make_folder({"a": 3, "b": 3}), 16, tmp_path / "cache", progress=interrupt)
    assert stores_in(tmp_path / "cache") == []


def on_small_disk(mount_point: Path, options: str) -> tuple[str, ...]:
    """Returns a command prefix under which a tmpfs lies at `mount_point`; it vanishes with the process. Skips where
    that is not allowed.
    """
    mount_point.mkdir()
    prefix = ("unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"', str(mount_point))
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    return prefix


def test_a_full_disk_is_told_with_how_much_is_needed_and_where(make_folder: MakeFolder, tmp_path: Path) -> None:
    """First the disk is too small from the start, then it fills up half-way."""
    root = make_folder({"a": 20, "b": 20})
    prefix = on_small_disk(tmp_path / "disk", "size=2m")
    code = """
import os
from tune_cropshield.errors import DiskFull
cache = Path(sys.argv[2])
def fill(done, total):
    if done == total // 2:
        try:
            (cache / "filler").write_bytes(bytes(4_000_000))
        except OSError:
            pass
for size, progress in ((160, None), (64, fill)):
    try:
        opened(Path(sys.argv[1]), size, cache, progress=progress)
    except DiskFull as error:
        print(error)
    print([path.name for path in cache.iterdir() if path.is_dir()])
"""
    output, errors = start(code, root, tmp_path / "disk", prefix=prefix).communicate(timeout=60)
    assert errors == ""
    advice = "free; free some, or choose another cache folder or a smaller image size"
    assert output.splitlines() == [
        f"no space left for the image store: it needs 3 MiB in '{tmp_path / 'disk'}', where 1 MiB are {advice}",
        "[]",
        f"no space left for the image store: it needs 1 MiB in '{tmp_path / 'disk'}', where 0 MiB are {advice}",
        "[]",
    ]


def test_a_read_only_cache_folder_is_the_users_fault(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 3, "b": 3})
    prefix = on_small_disk(tmp_path / "disk", "ro")
    code = """
from tune_cropshield.errors import DataError
try:
    opened(Path(sys.argv[1]), 16, Path(sys.argv[2]))
except DataError as error:
    print(error)
"""
    output, errors = start(code, root, tmp_path / "disk" / "cache", prefix=prefix).communicate(timeout=60)
    assert errors == ""
    assert output == f"the cache folder '{tmp_path / 'disk' / 'cache'}' cannot be written: Read-only file system\n"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere, and Windows has no such modes"
)
def test_a_cache_folder_without_permission_is_the_users_fault(make_folder: MakeFolder, tmp_path: Path) -> None:
    root, cache = make_folder({"a": 3, "b": 3}), tmp_path / "cache"
    cache.mkdir(mode=0o500)
    with pytest.raises(DataError, match=r"the cache folder .* cannot be written: Permission denied"):
        opened(root, 16, cache)


def test_a_file_in_the_place_of_the_cache_folder_is_the_users_fault(make_folder: MakeFolder, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(DataError, match=r"the cache folder .* cannot be written"):
        opened(make_folder({"a": 3, "b": 3}), 16, tmp_path / "cache")


def test_a_folder_that_cannot_be_used_leaves_no_cache_behind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        opened(tmp_path / "nowhere", 16, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("platform", "env", "expected"),
    [
        ("linux", {}, "/home/me/.cache/tune_cropshield"),
        ("linux", {"XDG_CACHE_HOME": "/fast/cache"}, "/fast/cache/tune_cropshield"),
        ("linux", {"XDG_CACHE_HOME": ""}, "/home/me/.cache/tune_cropshield"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/tune_cropshield"),
        ("darwin", {"XDG_CACHE_HOME": "/fast/cache"}, "/home/me/Library/Caches/tune_cropshield"),
        ("win32", {"LOCALAPPDATA": "/appdata"}, "/appdata/tune_cropshield"),
        ("win32", {}, "/home/me/AppData/Local/tune_cropshield"),
    ],
)
@posix_only
def test_each_platform_has_its_own_cache_folder(platform: str, env: dict[str, str], expected: str) -> None:
    assert PurePosixPath(user_cache_dir(platform, Path("/home/me"), env)) == PurePosixPath(expected)
