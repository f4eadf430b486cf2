"""Building a store: decoded, or copied from earlier stores, aside; renamed when it is whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from tune_cropshield.data.decode import DECODER_VERSION, DecodeError, FileReadError, decode_rgb
from tune_cropshield.data.folder import ImageFile, ImageFolder
from tune_cropshield.data.near_copies import thumbnail
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.data.store_files import FORMAT_VERSION, IMAGES, INDEX, THUMBNAILS, index_crc32, sampled_crc32
from tune_cropshield.data.store_reuse import KnownPicture, Pixels, known_pictures
from tune_cropshield.errors import DataError

VANISHED = "vanished"  # the reason given for a file that was there when the folder was indexed

Progress = Callable[[int, int], None]  # (images done, images in all)


def build_store(
    path: Path,
    folder: ImageFolder,
    preparation: Preparation,
    fingerprint: str,
    max_bad_share: float,
    progress: Progress | None,
    workers: int,
) -> None:
    """Writes the store aside and renames it to `path`. The caller holds its lock."""
    size = preparation.store_side
    needed, free = len(folder.files) * size * size * 3, shutil.disk_usage(path.parent).free
    if free < needed:  # said before an hour of decoding rather than after it
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path.parent))
    aside = path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    aside.mkdir()
    try:
        with (aside / IMAGES).open("wb") as sink, (aside / THUMBNAILS).open("wb") as small:
            with known_pictures(path.parent, folder, preparation) as known:
                kept, sizes, bad = _decode_into(sink, small, folder, preparation, known, progress, workers)
            _sync(sink)
            _sync(small)
        unreadable = tuple((name, reason) for name, reason, _ in bad)
        check_readable(folder, tuple(file.path for file in kept), unreadable, max_bad_share)
        index: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "decoder": DECODER_VERSION,
            "fingerprint": fingerprint,
            "size": size,
            "fit": preparation.fit,
            "root": str(folder.root),
            "classes": folder.classes,
            "labels": [file.label for file in kept],
            "paths": [file.path for file in kept],
            "digests": [file.digest for file in kept],
            "sizes": sizes,
            "unreadable": unreadable,
            "try_again": [name for name, _, may_succeed in bad if may_succeed],
        }
        with FileIO(aside / IMAGES) as images:
            index["images_crc32"] = sampled_crc32(images)
        with (aside / INDEX).open("wb") as sink:
            sink.write(json.dumps(index | {"index_crc32": index_crc32(index)}).encode("ascii"))
            _sync(sink)
        if path.exists():  # damaged, or nobody would be building
            shutil.rmtree(path)
        os.replace(aside, path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _decode_into(
    sink: BinaryIO,
    small: BinaryIO,
    folder: ImageFolder,
    preparation: Preparation,
    known: Mapping[str, KnownPicture],
    progress: Progress | None,
    workers: int,
) -> tuple[list[ImageFile], list[tuple[int, int]], list[tuple[str, str, bool]]]:
    """Appends each readable image's picture to `sink` and its thumbnail to `small`.

    known: pictures of earlier stores, by digest; what is not there is decoded.

    Returns their files, their widths and heights, and what is wrong with the others: (path, reason, whether another try
    may succeed).

    Plain writes in order, not stores into a mapping: a full disk raises here, where a mapping would kill the process
    (SIGBUS), and an unreadable image leaves no hole. A few images per thread are decoded ahead, so memory stays small
    whatever the folder holds.
    """
    kept: list[ImageFile] = []
    sizes: list[tuple[int, int]] = []
    bad: list[tuple[str, str, bool]] = []
    waiting = iter(folder.files)
    ahead: deque[tuple[ImageFile, Future[tuple[Pixels, Pixels, tuple[int, int]]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        for done in range(1, len(folder.files) + 1):
            while len(ahead) < 4 * workers and (next_file := next(waiting, None)) is not None:
                path, earlier = folder.root / next_file.path, known.get(next_file.digest)
                ahead.append((next_file, pool.submit(_picture_of, path, preparation, earlier)))
            file, future = ahead.popleft()
            try:
                picture, thumb, size = future.result()
                sink.write(picture.data)
                small.write(thumb.data)
                kept.append(file)
                sizes.append(size)
            except DecodeError as error:
                reason = VANISHED if isinstance(error.__cause__, FileNotFoundError) else str(error)
                bad.append((file.path, reason, isinstance(error, FileReadError)))
            if progress is not None:
                progress(done, len(folder.files))
    return kept, sizes, bad


def _picture_of(
    path: Path, preparation: Preparation, earlier: KnownPicture | None
) -> tuple[Pixels, Pixels, tuple[int, int]]:
    """Returns a photograph's picture, its thumbnail, and its width and height. Raises DecodeError.

    earlier: where an earlier store holds it; it is decoded where none does.
    """
    if earlier is not None and (pictures := earlier.read()) is not None:
        return *pictures, earlier.size
    photograph = decode_rgb(path)
    return preparation.picture(photograph), thumbnail(photograph), photograph.size


def check_readable(
    folder: ImageFolder, kept: Sequence[str], unreadable: Sequence[tuple[str, str]], max_bad_share: float
) -> None:
    """Raises DataError when too many images, or all of one class, are unreadable.

    A `max_bad_share` of 1 allows classes without any readable image: of a folder that is only judged.
    """
    if not unreadable:
        return
    first = ", ".join(f"{name} ({reason})" for name, reason in unreadable[:3]) + (
        ", ..." if len(unreadable) > 3 else ""
    )
    total = len(kept) + len(unreadable)
    if not kept:
        raise DataError(f"none of the {total} images in {str(folder.root)!r} can be read: {first}")
    if len(unreadable) > max_bad_share * total:
        raise DataError(
            f"{len(unreadable)} of {total} images in {str(folder.root)!r} cannot be read, more than the "
            f"{max_bad_share:.0%} allowed: {first}"
        )
    sound = set(kept)
    emptied = sorted(set(folder.classes) - {folder.classes[file.label] for file in folder.files if file.path in sound})
    if emptied and max_bad_share < 1:
        raise DataError(f"no image of {', '.join(map(repr, emptied))} in {str(folder.root)!r} can be read: {first}")


def remove_killed_builds(cache_dir: Path, key: str) -> None:
    """Removes killed builds.

    Those of `key`, whose lock the caller holds, and of any other store that nobody is building now.
    """
    for leftover in cache_dir.glob("*.tmp-*"):
        other = leftover.name.partition(".tmp-")[0]
        if other == key:
            shutil.rmtree(leftover, ignore_errors=True)
            continue
        with contextlib.suppress(Timeout), FileLock(cache_dir / f"{other}.lock", timeout=0):
            shutil.rmtree(leftover, ignore_errors=True)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut; Windows offers no such call."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
