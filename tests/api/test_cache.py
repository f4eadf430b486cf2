"""What the cache holds, and that `cache clear` removes what it may, and nothing else."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tune_cropshield as tc
from tune_cropshield.cli import main
from tune_cropshield.data.folder import scan_folder
from tune_cropshield.data.generated import draw_leaves, drawn_leaves_folder
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.data.store import Store, open_store
from tune_cropshield.search.prepare import _unused_stores

DAY = 86400


@pytest.fixture
def cache(home: Path) -> Path:
    """The cache folder, which is not there yet."""
    return home / "cache" / "tune_cropshield"


@pytest.fixture
def leaves(tmp_path: Path) -> Path:
    return draw_leaves(tmp_path / "leaves", classes=2, per_class=3, image_size=24)


def opened(leaves: Path, cache: Path, image_size: int = 16, days_ago: float = 0) -> Store:
    """Returns a store, as if it had been used last so many days ago."""
    store = open_store(scan_folder(leaves, cache / "digests.json"), Preparation(image_size), cache)
    then = time.time() - days_ago * DAY
    os.utime(store.path / "index.json", (then, then))
    return store


def there(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.suffix != ".lock"}


def test_what_is_there_is_told_with_photographs_sizes_and_when_it_was_used(
    leaves: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = opened(leaves, cache, 16)
    opened(leaves, cache, 28, days_ago=40)
    (cache / "probes").mkdir()
    (cache / "probes" / "0123456789abcdef.json").write_text("{}")
    gc.collect()

    found = tc.cache()

    assert found.folder == cache
    assert [(one.folder, one.photographs, one.classes, one.image_size, one.fit) for one in found.stores] == [
        (leaves, 6, 2, 16, "crop"),
        (leaves, 6, 2, 28, "crop"),
    ]
    assert [one.in_use for one in found.stores] == [True, False]
    images = 6 * 3 * (20**2 + 16**2)  # pictures and thumbnails
    assert found.stores[0].size_bytes == images + (store.path / "index.json").stat().st_size
    assert [one.image_size for one in found.old] == [28]
    assert len(found.measurements) == 1
    assert found.size_bytes == sum(
        path.stat().st_size for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"
    )

    assert main(["cache"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(
        f"{cache}: 1 MiB photographs of image size disk last used 6 {leaves} 16 px, crop 1 MiB in use"
    )
    assert "28 px, crop 1 MiB 40 days ago (old)" in text
    assert text.endswith("cache clear --older-than 30d")
    assert "1 store (1 MiB) not used for a month. Remove: " in text

    assert main(["cache", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dir"], told["bytes"], told["measurements"]["files"]) == (str(cache), found.size_bytes, 1)
    assert [(one["data"], one["old"], one["in_use"]) for one in told["stores"]] == [
        (str(leaves), False, True),
        (str(leaves), True, False),
    ]


def test_a_cache_that_is_not_there_holds_nothing_and_is_not_made(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache"]) == 0
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{cache}: 0 MiB",
        f"there was nothing to remove in {cache}",
        f"left in {cache}: 0 MiB",
    ]
    assert not cache.exists()


def test_a_store_that_is_used_stays_and_goes_when_nobody_has_it_open(leaves: Path, cache: Path) -> None:
    store = opened(leaves, cache)

    kept = tc.cache(clear=True)

    assert ([one.path for one in kept.kept], kept.removed) == ([store.path], ())
    assert Store.load(store.path).images.shape == (6, 20, 20, 3)
    path = store.path
    del store
    gc.collect()
    removed = tc.cache(clear=True)
    assert [one.path for one in removed.removed] == [path]
    assert removed.removed_bytes > 6 * 3 * (20**2 + 16**2)
    assert there(cache) == set()
    assert not list(cache.glob("*.use-*"))


def test_what_was_removed_is_said(leaves: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened(leaves, cache)
    gc.collect()
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"removed: 6 photographs of {leaves}, 16 px, crop (1 MiB)",
        "removed in all, with measured memory plans and checksums: 1 MiB",
        f"left in {cache}: 0 MiB",
    ]


@pytest.fixture
def elsewhere(leaves: Path, cache: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the store open."""
    code = """
import sys, time
from pathlib import Path
from tune_cropshield.data.folder import scan_folder
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.data.store import open_store
store = open_store(scan_folder(Path(sys.argv[1]), None), Preparation(16), Path(sys.argv[2]))
print("open", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code, leaves, cache], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        yield process
        process.kill()


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_process_that_is_killed_uses_nothing_any_more(elsewhere: subprocess.Popen[str], cache: Path) -> None:
    assert len(tc.cache(clear=True).kept) == 1
    elsewhere.send_signal(signal.SIGKILL)
    elsewhere.wait()
    assert [len(tc.cache(clear=True).removed), there(cache)] == [1, set()]


def test_only_what_is_old_enough_goes_where_an_age_is_given(leaves: Path, cache: Path) -> None:
    opened(leaves, cache, 16, days_ago=29)
    old = opened(leaves, cache, 28, days_ago=31).path
    new, measured = cache / "probes" / "0123456789abcdef.json", cache / "probes" / "fedcba9876543210.json"
    new.parent.mkdir()
    for path, days in ((new, 1), (measured, 60)):
        path.write_text("{}")
        os.utime(path, (time.time() - days * DAY,) * 2)
    gc.collect()

    assert [one.path for one in tc.cache(clear=True, older_than="30d").removed] == [old]

    assert new.exists() and not measured.exists()
    assert (cache / "digests.json").exists()
    assert len(tc.cache().stores) == 1


def test_to_use_a_store_again_is_to_use_it_now(leaves: Path, cache: Path) -> None:
    opened(leaves, cache, days_ago=99)
    gc.collect()
    assert [one.is_old() for one in tc.cache().stores] == [True]
    open_store(scan_folder(leaves, None), Preparation(16), cache)
    gc.collect()
    assert [one.is_old() for one in tc.cache().stores] == [False]


def test_links_and_what_this_program_has_not_made_stay(leaves: Path, cache: Path, tmp_path: Path) -> None:
    cache.mkdir(parents=True)
    outside = tmp_path / "outside"
    opened(leaves, tmp_path / "other")
    outside.mkdir()
    (outside / "precious.json").write_text("x")
    (cache / "notes.txt").write_text("mine")
    (cache / "my folder").mkdir()
    (cache / "drawn-leaves-6x80-96px").mkdir()
    (cache / "drawn-leaves-6x80-96px" / "leaf.png").write_bytes(b"x")
    inside = opened(leaves, cache).path
    gc.collect()
    (inside / "link").symlink_to(outside)
    (cache / "0123456789abcdef").symlink_to(outside)
    (cache / "0123456789abcdef.tmp-1-ab").symlink_to(outside)
    (cache / "probes").symlink_to(outside)
    (cache / "digests.json").unlink()
    (cache / "digests.json").symlink_to(outside / "precious.json")

    tc.cache(clear=True)

    assert there(cache) == {
        "notes.txt",
        "my folder",
        "drawn-leaves-6x80-96px",
        "0123456789abcdef",
        "0123456789abcdef.tmp-1-ab",
        "probes",
        "digests.json",
    }
    assert (outside / "precious.json").read_text() == "x"
    assert (cache / "drawn-leaves-6x80-96px" / "leaf.png").exists()


def test_the_synthetic_photographs_of_this_and_of_earlier_versions_are_counted_and_stay(cache: Path) -> None:
    for folder, num_bytes in ((drawn_leaves_folder(cache), 1000), (cache / "drawn-leaves-6x80-96px", 200)):
        folder.mkdir(parents=True)
        (folder / "leaf.png").write_bytes(b"x" * num_bytes)

    cleared = tc.cache(clear=True)

    assert cleared.synthetic_bytes == 1200
    assert (drawn_leaves_folder(cache) / "leaf.png").exists()


def test_a_cache_folder_that_is_a_link_is_cleared_behind_it(leaves: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "big disk").mkdir()
    cache.parent.mkdir()
    cache.symlink_to(tmp_path / "big disk")
    opened(leaves, cache)
    gc.collect()
    assert len(tc.cache(clear=True).removed) == 1
    assert there(tmp_path / "big disk") == set()


def test_what_a_killed_build_left_goes_and_one_that_goes_on_stays(leaves: Path, cache: Path) -> None:
    (cache / "0123456789abcdef.tmp-1-ab").mkdir(parents=True)
    (cache / "0123456789abcdef.tmp-1-ab" / "images.u8").write_bytes(bytes(5000))
    builds: list[set[str]] = []

    def clear_meanwhile(done: int, total: int) -> None:
        if done == 1:
            assert tc.cache().half_built_bytes >= 0
            tc.cache(clear=True)
            builds.append({name.partition(".")[2][:3] for name in there(cache) if ".tmp-" in name})

    open_store(scan_folder(leaves, None), Preparation(16), cache, progress=clear_meanwhile)
    assert builds == [{"tmp"}]
    assert len(tc.cache().stores) == 1


def test_a_damaged_store_is_shown_and_removed(leaves: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = opened(leaves, cache).path
    gc.collect()
    (path / "index.json").unlink()
    assert main(["cache"]) == 0
    assert "(of another version, or damaged)" in capsys.readouterr().out
    assert [one.photographs for one in tc.cache(clear=True).removed] == [None]
    assert not path.exists()


def test_a_search_offers_stores_that_were_not_used_for_a_month(leaves: Path, cache: Path) -> None:
    opened(leaves, cache, 16)
    gc.collect()
    assert _unused_stores(cache) is None
    opened(leaves, cache, 28, days_ago=31)
    gc.collect()
    told = _unused_stores(cache)
    assert told is not None
    assert told.startswith("1 store of decoded photographs (1 MiB) was not used for a month. Remove:  ")
    assert told.endswith("cache clear --older-than 30d")
    kept = opened(leaves, cache, 28, days_ago=31)  # it is open
    assert _unused_stores(cache) is None
    assert kept.size == 32


@pytest.mark.parametrize("wrong", ["", "30", "30 fortnights", "-3d", "0d"])
def test_a_duration_that_is_none_is_told(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "clear", f"--older-than={wrong}"]) == 2
    told = f"error: --older-than: must be a duration like 30d or 12h, but got {wrong!r}\n"
    assert capsys.readouterr().err == told


def test_an_age_without_clear_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "--older-than", "30d"]) == 2
    assert capsys.readouterr().err == (
        "error: --older-than: says what cache clear removes; without clear, nothing is removed\n"
    )
