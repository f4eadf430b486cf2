"""A folder of images -> classes, files and the digest of every file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tune_cropshield.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
LAYOUT = "expected one sub-folder per class, as in DATA/healthy/1.jpg and DATA/rust/2.jpg"
SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}
HASHING_THREADS = 8  # more than cores: a cold disk is waited for, not computed


@dataclass(frozen=True)
class ImageFile:
    """One image.

    path: relative to the folder, with forward slashes. label: an index into its classes. digest: its SHA-256 in hex.
    """

    path: str
    label: int
    digest: str


@dataclass(frozen=True)
class ImageFolder:
    """What `scan_folder` found.

    `classes` and `files` are sorted by name and path, so equal folders compare equal on every machine.

    `skipped` names what lies in the folder and was left out: sub-folders without any image, and images outside every
    class.
    """

    root: Path
    classes: tuple[str, ...]
    files: tuple[ImageFile, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class ListedImage:
    """An image by its name and status alone: nothing of it was read."""

    path: str  # relative, forward slashes
    size: int  # bytes
    mtime_ns: int


def scan_folder(root: Path, digest_cache: Path | None) -> ImageFolder:
    """Returns every image below `root`; each of its sub-folders is a class, and folders inside a class belong to it.

    Images are .jpg .jpeg .png .bmp .webp in upper or lower case, judged by name: whether one can be decoded is the
    store's question. Hidden files and folders (leading dot) are ignored. A class folder may be a symbolic link; links
    to folders deeper inside are not followed.

    Args:
        digest_cache: a JSON file {absolute path: [bytes, mtime_ns, SHA-256]}, read before hashing and brought up to
            date after it, so that an unchanged file is not read again; a damaged or unwritable one costs only time.
            None hashes every file.

    Raises:
        DataError: the folder is missing, no folder, not readable, without images, with one class, or already split.
    """
    root = Path(os.path.abspath(root))
    try:
        found, skipped = _find_images(root)
        _check_classes(root, found, skipped)
        digests = _digests(root, [file for files in found.values() for file in files], digest_cache)
    except PermissionError as error:
        raise DataError(f"no permission to read {str(error.filename or root)!r}") from error
    classes = tuple(sorted(found))
    files = [
        ImageFile(file.path, label, digests[file.path])
        for label, name in enumerate(classes)
        for file in found[name]
        if file.path in digests  # deleted since it was listed: as if it had never been there
    ]
    return ImageFolder(root, classes, tuple(sorted(files, key=lambda file: file.path)), tuple(sorted(skipped)))


def check_folder(root: Path) -> None:
    """Raises DataError as `scan_folder` would, in an instant: the files are listed, but not read."""
    list_images(root)


def list_images(root: Path) -> dict[str, list[ListedImage]]:
    """Returns the images of each class without reading any; raises DataError as `scan_folder` would."""
    root = Path(os.path.abspath(root))
    try:
        found, skipped = _find_images(root)
        _check_classes(root, found, skipped)
    except PermissionError as error:
        raise DataError(f"no permission to read {str(error.filename or root)!r}") from error
    return found


def is_image_name(name: str) -> bool:
    """Returns whether a file of this name counts as an image."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def images_below(folder: Path) -> list[Path]:
    """Returns the files below `folder`, at any depth, whose names are those of images.

    Hidden folders and links to folders are passed over.
    """
    return sorted(folder / file.path for file in _images_below(str(folder), "."))


def _find_images(root: Path) -> tuple[dict[str, list[ListedImage]], list[str]]:
    """Returns the images of each class that has any, and the names in `root` that were left out."""
    if not os.path.exists(root):  # unlike Path.exists, says no to names that are too long
        raise DataError(f"there is no folder {str(root)!r}")
    if not root.is_dir():
        raise DataError(f"{str(root)!r} is not a folder; {LAYOUT}")
    found: dict[str, list[ListedImage]] = {}
    skipped = []
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                images = _images_below(entry.path, entry.name)
                if images:
                    found[entry.name] = images
                else:
                    skipped.append(entry.name)
            elif is_image_name(entry.name):
                skipped.append(entry.name)
    return found, skipped


def _images_below(folder: str, prefix: str) -> list[ListedImage]:
    found = []
    waiting = [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                path = f"{prefix}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith("."):
                        waiting.append((entry.path, path))
                elif is_image_name(entry.name) and entry.is_file():
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat()
                        found.append(ListedImage(path, status.st_size, status.st_mtime_ns))
    return found


def _check_classes(root: Path, found: dict[str, list[ListedImage]], skipped: list[str]) -> None:
    strays = [name for name in skipped if is_image_name(name) and not (root / name).is_dir()]
    if not found:
        if strays:
            raise DataError(
                f"the {len(strays)} images of {str(root)!r} lie directly in it, so they have no class; {LAYOUT}"
            )
        raise DataError(f"no images ({' '.join(IMAGE_SUFFIXES)}) in the sub-folders of {str(root)!r}; {LAYOUT}")
    if len(found) == 1:
        (name, files) = next(iter(found.items()))
        inner = {file.path.split("/")[1] for file in files if file.path.count("/") > 1}
        hint = f"; it has sub-folders itself: was {str(root / name)!r} meant?" if len(inner) > 1 else ""
        raise DataError(
            f"at least two classes are needed, but {str(root)!r} has one: {name!r} with {len(files)} images{hint}"
        )
    if {name.lower() for name in found} <= SPLIT_NAMES:
        raise DataError(
            f"{str(root)!r} holds splits ({', '.join(sorted(found))}), not classes: give a folder with one "
            "sub-folder per class, and it is split here"
        )


def _digests(root: Path, files: list[ListedImage], digest_cache: Path | None) -> dict[str, str]:
    """Returns relative path -> SHA-256, without the files that have been deleted meanwhile.

    A file that may not or cannot be read has a digest of its own, made of its path: whoever decodes it says what is
    wrong and leaves it out.
    """
    known = _read_cache(digest_cache) if digest_cache is not None else {}
    absolute = {file.path: os.path.join(root, *file.path.split("/")) for file in files}
    digests: dict[str, str] = {}
    unknown = []
    for file in files:
        entry = known.get(absolute[file.path])
        if isinstance(entry, list) and entry[:2] == [file.size, file.mtime_ns] and _is_digest(entry[2:]):
            digests[file.path] = entry[2]
        else:
            unknown.append(file)
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        for file, digest in zip(unknown, pool.map(_sha256, [absolute[file.path] for file in unknown]), strict=True):
            if digest is not None:
                digests[file.path] = digest
    unread = {file.path for file in unknown if digests.get(file.path) == _instead_of_content(absolute[file.path])}
    if digest_cache is not None and unknown:
        inside = os.path.join(root, "")
        entries: dict[str, object] = {path: entry for path, entry in known.items() if not path.startswith(inside)}
        entries |= {
            absolute[file.path]: [file.size, file.mtime_ns, digests[file.path]]
            for file in files
            if file.path in digests.keys() - unread
        }
        _write_cache(digest_cache, entries)
    return digests


def _sha256(path: str) -> str | None:
    """Returns the digest, that of its path where the file cannot be read, or None when it is gone."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError:
        return _instead_of_content(path)


def _instead_of_content(path: str) -> str:
    return hashlib.sha256(f"unreadable {path}".encode(errors="surrogateescape")).hexdigest()


def _is_digest(rest: list[object]) -> bool:
    return len(rest) == 1 and isinstance(rest[0], str) and len(rest[0]) == 64


def _read_cache(path: Path) -> dict[str, object]:
    """Returns what the cache holds, or nothing when it is missing or damaged.

    Each entry is checked where it is used.
    """
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _write_cache(path: Path, entries: dict[str, object]) -> None:
    """Replaces the cache in one step.

    Two writers at once: the last one wins, which costs the other one a second hashing.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(entries), encoding="ascii")
        os.replace(aside, path)
    except OSError:  # an optimisation only: a full or read-only disk is reported by whoever must write there
        with contextlib.suppress(OSError):
            aside.unlink()
