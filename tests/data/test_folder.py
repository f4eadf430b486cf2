from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tune_cropshield.data.folder import ImageFile, scan_folder
from tune_cropshield.errors import DataError

DIGEST_OF_A = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"  # SHA-256 of b"a"
DIGEST_OF_B = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"  # SHA-256 of b"b"


def write(root: Path, *names: str, content: bytes = b"a") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_each_sub_folder_is_a_class_and_everything_is_sorted(tmp_path: Path) -> None:
    write(tmp_path, "rust/2.jpg", "rust/10.jpg")
    write(tmp_path, "healthy/1.jpg", content=b"b")
    folder = scan_folder(tmp_path, None)
    assert folder.root == tmp_path
    assert folder.classes == ("healthy", "rust")
    assert folder.files == (
        ImageFile("healthy/1.jpg", 0, DIGEST_OF_B),
        ImageFile("rust/10.jpg", 1, DIGEST_OF_A),
        ImageFile("rust/2.jpg", 1, DIGEST_OF_A),
    )


def test_all_suffixes_count_in_any_case_and_in_deeper_folders(tmp_path: Path) -> None:
    write(tmp_path, "a/1.JPG", "a/2.Jpeg", "a/3.png", "b/4.BMP", "b/2024/may/5.webp", "b/notes.txt", "b/6.tiff")
    paths = [file.path for file in scan_folder(tmp_path, None).files]
    assert paths == ["a/1.JPG", "a/2.Jpeg", "a/3.png", "b/2024/may/5.webp", "b/4.BMP", "b/6.tiff"]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "a/._1.jpg", "a/.cache/2.jpg", "b/3.jpg", ".git/4.jpg", ".5.jpg")
    folder = scan_folder(tmp_path, None)
    assert [file.path for file in folder.files] == ["a/1.jpg", "b/3.jpg"]
    assert [(it.path, it.kind) for it in folder.left_out] == [
        (".5.jpg", "system"),
        (".git/", "system"),
        ("a/._1.jpg", "system"),
        ("a/.cache/", "system"),
    ]


def test_folders_without_images_and_images_without_class_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "b/2.jpg", "papers/readme.txt", "cover.png", "labels.csv")
    folder = scan_folder(tmp_path, None)
    assert folder.classes == ("a", "b")
    assert [(it.path, it.kind, it.class_name) for it in folder.left_out] == [
        ("cover.png", "no class", ""),
        ("labels.csv", "other", ""),
        ("papers/", "empty", ""),
        ("papers/readme.txt", "other", "papers"),
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no images"),
        (["a/readme.txt"], "expected one sub-folder per class, as in DATA/healthy/1.jpg"),
        (["1.jpg", "2.jpg"], "the 2 images of .* lie directly in it, so they have no class"),
        (["rust/1.jpg"], "at least two classes are needed, but .* has one: 'rust' with 1 image$"),
        (["color/rust/1.jpg", "color/healthy/2.jpg"], "has sub-folders itself: was '.*color' meant"),
    ],
)
def test_a_folder_of_another_layout_is_refused_with_a_hint(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        scan_folder(write(tmp_path, *names), None)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_file_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, "leaves.zip")
    with pytest.raises(DataError, match=r"there is no folder '.*nowhere'"):
        scan_folder(tmp_path / "nowhere", None)
    with pytest.raises(DataError, match=r"leaves\.zip' is not a folder"):
        scan_folder(tmp_path / "leaves.zip", None)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything, and Windows has no such modes"
)
@pytest.mark.parametrize("locked", [".", "b"])
def test_missing_permission_names_the_path(tmp_path: Path, locked: str) -> None:
    root = write(tmp_path / "photos", "a/1.jpg", "b/2.jpg")
    (root / locked).chmod(0)
    try:
        with pytest.raises(DataError, match=r"no permission to read .*photos"):
            scan_folder(root, None)
    finally:
        (root / locked).chmod(0o700)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything, and Windows has no such modes"
)
def test_an_image_that_may_not_be_read_is_left_to_whoever_decodes_it_and_hashed_again(tmp_path: Path) -> None:
    root, cache = write(tmp_path / "photos", "a/1.jpg", "b/2.jpg"), tmp_path / "cache" / "digests.json"
    (root / "b/2.jpg").chmod(0)
    scan_folder(root, cache)
    assert len(json.loads(cache.read_text())) == 1
    (root / "b/2.jpg").chmod(0o600)
    scan_folder(root, cache)
    assert len(json.loads(cache.read_text())) == 2


def test_an_unchanged_file_is_not_hashed_again_but_a_touched_one_is(tmp_path: Path) -> None:
    root, cache = write(tmp_path / "photos", "a/1.jpg", "b/2.jpg"), tmp_path / "cache" / "digests.json"
    scan_folder(root, cache)
    entries = json.loads(cache.read_text())
    assert entries[str(root / "a" / "1.jpg")][0] == 1
    assert entries[str(root / "a" / "1.jpg")][2] == DIGEST_OF_A

    planted = "0" * 64  # shows which digests come from the cache
    cache.write_text(json.dumps({path: [size, mtime, planted] for path, (size, mtime, _) in entries.items()}))
    os.utime(root / "b" / "2.jpg", ns=(1, 1))
    assert [file.digest for file in scan_folder(root, cache).files] == [planted, DIGEST_OF_A]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[1, 2]", b"\xff\xfe", b'{"PATH": 7}', b'{"PATH": [1]}', b'{"PATH": [1, 2, 3, 4]}']
)
def test_a_corrupt_digest_cache_is_ignored_and_replaced(tmp_path: Path, damage: bytes) -> None:
    root, cache = write(tmp_path / "photos", "a/1.jpg", "b/2.jpg"), tmp_path / "digests.json"
    cache.write_bytes(damage.replace(b"PATH", str(root / "a" / "1.jpg").encode()))
    assert {file.digest for file in scan_folder(root, cache).files} == {DIGEST_OF_A}
    assert len(json.loads(cache.read_text())) == 2


def test_the_digest_cache_forgets_deleted_files_and_keeps_those_of_other_folders(tmp_path: Path) -> None:
    first, second = write(tmp_path / "one", "a/1.jpg", "b/2.jpg"), write(tmp_path / "two", "a/1.jpg", "b/2.jpg")
    cache = tmp_path / "digests.json"
    scan_folder(first, cache)
    scan_folder(second, cache)
    (first / "a" / "1.jpg").rename(first / "a" / "3.jpg")
    scan_folder(first, cache)
    assert sorted(Path(path).relative_to(tmp_path).as_posix() for path in json.loads(cache.read_text())) == [
        "one/a/3.jpg",
        "one/b/2.jpg",
        "two/a/1.jpg",
        "two/b/2.jpg",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digests.json", "one", "two"]


def test_a_digest_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    root = write(tmp_path / "photos", "a/1.jpg", "b/2.jpg")
    write(tmp_path, "file")
    assert len(scan_folder(root, tmp_path / "file" / "digests.json").files) == 2


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_class_folders_may_be_links_and_dangling_links_are_no_images(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/1.jpg", "photos/a/2.jpg")
    (tmp_path / "photos" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert [file.path for file in scan_folder(tmp_path / "photos", None).files] == ["a/2.jpg", "b/1.jpg"]
