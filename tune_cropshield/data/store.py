"""The decode-once store: every image of a folder as one file of RGB bytes that all trials map into memory.

    cache_dir/<key>/images.u8     N x size x size x 3 bytes, in the order of index.json
    cache_dir/<key>/thumbnails.u8 N x 16 x 16 x 3 bytes: whole photographs, to find copies by
    cache_dir/<key>/copies.json   the groups of photographs that look alike, once they were looked for
    cache_dir/<key>/index.json    labels, classes, paths, digests, what could not be read, checksums
    cache_dir/<key>.lock          held while that store is built or looked for
    cache_dir/<key>.use-*         held while it is used (store_use.py)
    cache_dir/<key>.tmp-*/        a build that is going on, or was killed
    cache_dir/digests.json        spares an unchanged file its hashing

<key> is the beginning of the fingerprint: a changed folder, preparation or decoder is another store, so nothing ever
goes stale. What an earlier store holds of a changed folder's photographs is taken from there, byte by byte the same.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from tune_cropshield.config.units import MIB
from tune_cropshield.data.decode import DECODER_VERSION
from tune_cropshield.data.folder import ImageFolder
from tune_cropshield.data.near_copies import ALIKE, THUMBNAIL_SIDE, groups_by_look
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.data.store_build import Progress, build_store, check_readable, remove_killed_builds
from tune_cropshield.data.store_files import (
    COPIES,
    FORMAT_VERSION,
    IMAGES,
    THUMBNAILS,
    DamagedStore,
    check_whole,
    read_index,
)
from tune_cropshield.data.store_use import note_use
from tune_cropshield.device import num_cores
from tune_cropshield.errors import DataError, DiskFull
from tune_cropshield.files import write_text_atomically

if TYPE_CHECKING:  # seconds to import, and needed only once a store is mapped: a bad folder is told about at once
    from torch import Tensor

KEY_LENGTH = 16  # hex digits: short enough for Windows paths, long enough never to collide


@dataclass(frozen=True, eq=False, repr=False)
class Store:
    """N decoded images.

    A store pickles as its path, so that sending one to another process costs nothing and both share the same memory.

    Attributes:
        images: (N, size, size, 3) uint8 on the CPU, mapped read-only: writing to it in place crashes the process.
        labels: (N,) int64, indices into `classes`.
        paths, digests, sizes: N each; paths are relative to `root`, with forward slashes, digests are SHA-256 in hex,
            sizes are the upright photographs' widths and heights in px.
        unreadable: (path, reason) of each image that was left out.
    """

    path: Path
    root: Path
    size: int
    fingerprint: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    digests: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    unreadable: tuple[tuple[str, str], ...]
    labels: Tensor
    images: Tensor

    @staticmethod
    def load(path: Path, root: Path | None = None) -> Store:
        """Returns the store at `path`, its index and a sample of its bytes checked (milliseconds).

        Args:
            root: the folder of the images, where it is not the one the store was built from (a moved folder of equal
                content shares its store).

        Raises:
            DamagedStore: there is no store, or not a whole one.
        """
        path = Path(path)
        index = read_index(path)
        import torch

        size, labels = index["size"], index["labels"]
        images = path / IMAGES
        shape = (len(labels), size, size, 3)
        try:
            with FileIO(images) as pictures, FileIO(path / THUMBNAILS) as small:
                check_whole(pictures, small, index)
            mapped = np.memmap(images, dtype=np.uint8, mode="r", shape=shape)
        except OSError as error:
            raise DamagedStore(f"{images} cannot be read: {error.strerror}") from error
        return Store(
            path=path,
            root=Path(index["root"]) if root is None else Path(root),
            size=size,
            fingerprint=index["fingerprint"],
            classes=tuple(index["classes"]),
            paths=tuple(index["paths"]),
            digests=tuple(index["digests"]),
            sizes=tuple((width, height) for width, height in index["sizes"]),
            unreadable=tuple((name, reason) for name, reason in index["unreadable"]),
            labels=torch.tensor(labels, dtype=torch.int64),
            images=_read_only_tensor(mapped),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def thumbnails(self) -> npt.NDArray[np.uint8]:
        """Returns a small picture of each whole photograph, (N, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)."""
        return np.fromfile(self.path / THUMBNAILS, dtype=np.uint8).reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)

    def groups_by_look(self) -> list[list[int]]:
        """Returns groups of photographs that look alike, as sorted indices. They are kept beside the pictures."""
        path = self.path / COPIES
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            groups = [[range(len(self))[index] for index in group] for group in known["groups"]]
            if known["alike"] == ALIKE:
                return groups
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            pass  # not there yet, or cut off by a full disk
        groups = groups_by_look(self.thumbnails())
        with contextlib.suppress(OSError):
            write_text_atomically(path, json.dumps({"alike": ALIKE, "groups": groups}))
        return groups

    def __reduce__(self) -> tuple[Callable[[Path, Path], Store], tuple[Path, Path]]:
        return Store.load, (self.path, self.root)

    def __repr__(self) -> str:
        return (
            f"Store({str(self.path)!r}: {len(self)} images of {len(self.classes)} classes at {self.size} px from "
            f"{str(self.root)!r})"
        )


def open_store(
    folder: ImageFolder,
    preparation: Preparation,
    cache_dir: Path,
    *,
    max_bad_share: float = 0.05,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Store:
    """Returns the pictures that `preparation` makes of a folder's images.

    Their store is built in `cache_dir` unless a sound one is there. Any number of processes may ask at once: one
    builds, the others wait for it. A killed build leaves nothing that is mistaken for a store.

    Args:
        max_bad_share: the largest share of images in [0, 1] that may be unreadable; those are left out and listed in
            `Store.unreadable`.
        progress: called in the calling thread after each image while building; never when the store is there.
        workers: decoding threads, one per core when None.

    Raises:
        DataError: too many images are unreadable, or all of a class, or `cache_dir` must not be written to.
        DiskFull: the disk is full.
    """
    assert workers is None or workers > 0
    cache_dir = Path(os.path.abspath(cache_dir))
    fingerprint = fingerprint_of(folder, preparation)
    path = cache_dir / fingerprint[:KEY_LENGTH]
    with _storage_errors_named(cache_dir, len(folder.files) * preparation.store_side**2 * 3):
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                store = _load_if_sound(path, folder.root, fingerprint)
                if store is None:
                    remove_killed_builds(cache_dir, path.name)
                    build_store(path, folder, preparation, fingerprint, max_bad_share, progress, workers or num_cores())
                    store = Store.load(path, folder.root)
                note_use(path, store)
        except OSError:  # a cache that must not be written to, or on a full disk: what it holds can be used
            store = _load_if_sound(path, folder.root, fingerprint)
            if store is None:
                raise
    check_readable(folder, store.paths, store.unreadable, max_bad_share)
    return store


def fingerprint_of(folder: ImageFolder, preparation: Preparation) -> str:
    """Returns the SHA-256 (hex) of all that decides a store's bytes.

    That is: paths, class names, contents, side, fit, decoder and layout.
    """
    how = [FORMAT_VERSION, DECODER_VERSION, preparation.store_side, preparation.fit]
    digest = hashlib.sha256(json.dumps(how).encode())
    for file in sorted(folder.files, key=lambda file: file.path):
        digest.update(json.dumps([file.path, folder.classes[file.label], file.digest]).encode())
    return digest.hexdigest()


def _load_if_sound(path: Path, root: Path, fingerprint: str) -> Store | None:
    """Returns the store, or None when it is missing, damaged, or another one.

    A store that lacks an image which can be read by now is not sound either.
    """
    try:
        store = Store.load(path, root)
        missing = read_index(path)["try_again"]
    except DamagedStore:
        return None
    return (
        store if store.fingerprint == fingerprint and not any(_can_be_read(root / name) for name in missing) else None
    )


def _can_be_read(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _storage_errors_named(cache_dir: Path, needed_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(cache_dir).free
            raise DiskFull(
                f"no space left for the image store: it needs {-(-needed_bytes // MIB)} MiB in {str(cache_dir)!r}, "
                f"where {free // MIB} MiB are free; free some, or choose another cache folder or a smaller image size"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise DataError(f"the cache folder {str(cache_dir)!r} cannot be written: {error.strerror}") from error
        raise


def _read_only_tensor(mapped: npt.NDArray[np.uint8]) -> Tensor:
    """Returns a tensor over the same memory.

    torch warns that it knows no read-only tensors; `Store` says so where it matters.

    A private, copy-on-write mapping would need no such care, but Windows sets its whole size aside in every process.
    """
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(mapped)
