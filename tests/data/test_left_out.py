"""Every photograph that can be read is used whatever its name, and everything else is told."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tune_cropshield.data.decode import READS_HEIC, DecodeError, decode_rgb
from tune_cropshield.data.folder import scan_folder
from tune_cropshield.data.left_out import LeftOut, left_out_lines, read_left_out, write_left_out
from tune_cropshield.data.listing import photographs_below
from tune_cropshield.errors import DataError
from tune_cropshield.shell import install_command

HEIC_REMEDY = f"HEIC is not read: convert them to JPEG, or install a reader:  {install_command('pillow-heif')}"
HEIC_HEAD = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
posix_only = pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")


def photograph(path: Path, form: str = "JPEG", colour: str = "green") -> Path:
    """Writes a picture of 16 px in any format under any name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), colour).save(path, format=form)
    return path


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """A folder with the classes a and b, of one photograph each."""
    photograph(tmp_path / "leaves" / "a" / "0.jpg")
    photograph(tmp_path / "leaves" / "b" / "0.jpg", colour="red")
    return tmp_path / "leaves"


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("1.tif", "TIFF"),
        ("1.TIFF", "TIFF"),
        ("1.jfif", "JPEG"),
        ("1.jpe", "JPEG"),
        ("1.gif", "GIF"),
        ("1.ppm", "PPM"),
        ("1.pnm", "PPM"),
        ("1.jp2", "JPEG2000"),
        ("1.JPG", "JPEG"),
        ("1.jpg?w=300&ssl=1", "JPEG"),
        ("1.jpg~", "JPEG"),
        ("IMG_1", "JPEG"),
        ("IMG_2.", "PNG"),
        ("scan.0001", "TIFF"),
        ("leaf.photo", "WEBP"),
        ("leaf no suffix", "BMP"),
    ],
)
def test_a_photograph_is_used_whatever_its_name(two_classes: Path, name: str, form: str) -> None:
    path = photograph(two_classes / "a" / name, form)
    folder = scan_folder(two_classes, None)
    assert [file.path for file in folder.files] == sorted(["a/0.jpg", f"a/{name}", "b/0.jpg"])
    assert folder.left_out == ()
    assert decode_rgb(path).mode == "RGB"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("1.txt", b"notes", "other"),
        ("film.MP4", b"", "other"),
        ("boxes.json", b"{}", "other"),
        ("README", b"BMW and P3 begin like pictures", "other"),
        ("empty", b"", "other"),
        ("raw.NEF", b"II*\x00", "format"),
        ("paint.psd", b"8BPS", "format"),
        ("._0.jpg", b"apple", "system"),
        ("Thumbs.db", b"", "system"),
    ],
)
def test_what_is_no_photograph_is_counted(two_classes: Path, name: str, content: bytes, kind: str) -> None:
    (two_classes / "a" / name).write_bytes(content)
    folder = scan_folder(two_classes, None)
    assert [file.path for file in folder.files] == ["a/0.jpg", "b/0.jpg"]
    assert [(it.path, it.kind, it.class_name) for it in folder.left_out] == [(f"a/{name}", kind, "a")]


@pytest.mark.skipif(READS_HEIC, reason="the optional reader of HEIC is installed")
@pytest.mark.parametrize("name", ["IMG_1.HEIC", "IMG_1.heif", "IMG_1"])
def test_heic_is_told_with_its_remedy(two_classes: Path, name: str) -> None:
    (two_classes / "b" / name).write_bytes(HEIC_HEAD)
    (found,) = scan_folder(two_classes, None).left_out
    assert found == LeftOut(f"b/{name}", "format", HEIC_REMEDY, "b")


@pytest.mark.skipif(READS_HEIC, reason="the optional reader of HEIC is installed")
def test_heic_under_the_name_of_a_jpeg_is_told_as_heic(two_classes: Path) -> None:
    (two_classes / "a" / "1.jpg").write_bytes(HEIC_HEAD)
    with pytest.raises(DecodeError, match=r"^HEIC is not read: convert them to JPEG"):
        decode_rgb(two_classes / "a" / "1.jpg")


@pytest.mark.parametrize(
    "name",
    (
        *("@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", "System Volume Information", ".Trashes"),
        *(".ipynb_checkpoints", "@Recycle", ".thumbnails"),
    ),
)
def test_folders_of_systems_and_file_servers_are_no_classes_and_inside_classes_not_read(
    two_classes: Path, name: str
) -> None:
    photograph(two_classes / name / "0.jpg")
    photograph(two_classes / "a" / name / "0.jpg" / "SYNOPHOTO_THUMB_XL.jpg")
    folder = scan_folder(two_classes, None)
    assert folder.classes == ("a", "b")
    assert [file.path for file in folder.files] == ["a/0.jpg", "b/0.jpg"]
    assert sorted((it.path, it.kind) for it in folder.left_out) == sorted(
        [(f"{name}/", "system"), (f"a/{name}/", "system")]
    )


@posix_only
def test_linked_folders_inside_a_class_are_followed_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        photograph(tmp_path / "elsewhere" / name / "1.jpg")
        photograph(tmp_path / "leaves" / name / "own" / "2.jpg")
        (tmp_path / "leaves" / name / "batch1").symlink_to(tmp_path / "elsewhere" / name)
    inside = tmp_path / "leaves" / "a"
    (inside / "again").symlink_to(tmp_path / "elsewhere" / "a")
    (inside / "circle").symlink_to(inside)
    (inside / "all").symlink_to(tmp_path)
    (inside / "own2").symlink_to(inside / "own")
    (inside / "nowhere").symlink_to(tmp_path / "gone")
    folder = scan_folder(tmp_path / "leaves", None)
    assert [file.path for file in folder.files] == ["a/again/1.jpg", "a/own/2.jpg", "b/batch1/1.jpg", "b/own/2.jpg"]
    assert [(it.path, it.kind) for it in folder.left_out] == [
        (path, "link") for path in ("a/all/", "a/batch1/", "a/circle/", "a/nowhere", "a/own2/")
    ]


@posix_only
def test_a_link_to_another_class_or_the_folder_itself_is_told_and_not_read_again(tmp_path: Path) -> None:
    for path in ("leaves/healthy/1.jpg", "leaves/rust/2.jpg", "elsewhere/scab/3.jpg"):
        photograph(tmp_path / path)
    for link, target in (
        ("healthy/also", "../rust"),  # before rust is listed
        ("rust/other", "../healthy"),
        ("rust/all", ".."),
        ("aaa", "healthy"),
        ("scab", "../elsewhere/scab"),
        ("scab2", "../elsewhere"),
        ("rust/scab", "../../elsewhere/scab"),
    ):
        (tmp_path / "leaves" / link).symlink_to(target)
    folder = scan_folder(tmp_path / "leaves", None)
    assert [file.path for file in folder.files] == ["healthy/1.jpg", "rust/2.jpg", "scab/3.jpg"]
    assert left_out_lines(folder.left_out) == [
        "left out: 6 links (to photographs that are read already): aaa/, healthy/also/, rust/all/, rust/other/, "
        "rust/scab/ and 1 more"
    ]


def test_what_is_left_out_is_told_in_a_few_lines(two_classes: Path) -> None:
    for name in ("a/1.heic", "a/2.HEIC", "b/3.heic"):
        (two_classes / name).write_bytes(HEIC_HEAD)
    (two_classes / "a" / "4.nef").write_bytes(b"II*\x00")
    photograph(two_classes / "cover.jpg")
    (two_classes / "rust").mkdir()
    for name in ("a/1.txt", "b/2.txt", "list.csv", "a/Thumbs.db"):
        (two_classes / name).write_text("")
    found = [*scan_folder(two_classes, None).left_out, LeftOut("a/5.jpg", "unreadable", "empty file", "a")]
    if not READS_HEIC:
        assert left_out_lines(found) == [
            "left out: a/5.jpg (empty file)",
            f"left out: 3 .heic in a 2, b 1 ({HEIC_REMEDY})",
            "left out: 1 .nef in a (this format is not read: convert them to JPEG or PNG)",
            "left out: 1 photograph in no class folder: cover.jpg",
            "left out: 1 folder without photographs: rust/",
            "ignored, not photographs: 2 .txt, 1 .csv; 1 Thumbs.db (hidden, or made by the system or a file server)",
        ]


def test_many_unreadable_photographs_are_counted_by_class() -> None:
    many = [LeftOut(f"rust/{index}.jpg", "unreadable", "empty file", "rust") for index in range(7)]
    lines = left_out_lines(many)
    assert lines[:5] == [f"left out: rust/{index}.jpg (empty file)" for index in range(5)]
    assert lines[5:] == ["left out: 2 more that cannot be read in rust"]


def test_what_is_left_out_is_kept_in_a_table(tmp_path: Path) -> None:
    things = [LeftOut("a/0.jpg", "unreadable", 'broken, "x"', "a"), LeftOut("@eaDir/", "system", "hidden", "")]
    write_left_out(tmp_path, things)
    assert read_left_out(tmp_path) == things
    assert read_left_out(tmp_path / "older") == []


def test_photographs_below_a_folder_come_with_what_is_left_out(two_classes: Path) -> None:
    shutil.copy(two_classes / "a" / "0.jpg", two_classes / "b" / "no suffix")
    (two_classes / "notes.txt").write_text("")
    photographs, left_out = photographs_below(two_classes)
    assert photographs == [two_classes / "a" / "0.jpg", two_classes / "b" / "0.jpg", two_classes / "b" / "no suffix"]
    assert [it.path for it in left_out] == ["notes.txt"]


@pytest.mark.skipif(READS_HEIC, reason="the optional reader of HEIC is installed")
def test_a_folder_of_heic_alone_is_refused_with_the_reason(tmp_path: Path) -> None:
    for name in ("a/1.heic", "b/2.heic"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(HEIC_HEAD)
    with pytest.raises(DataError, match=r"no images in .*; left out: 2 \.heic in a 1, b 1 \(HEIC is not read: convert"):
        scan_folder(tmp_path, None)
