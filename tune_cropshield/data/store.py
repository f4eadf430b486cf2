"""The decode-once store: every image of a folder as one file of RGB bytes that all trials map into memory.

    cache_dir/<key>/images.u8     N x size x size x 3 bytes, in the order of index.json
    cache_dir/<key>/index.json    labels, classes, paths, digests, what could not be read, checksums
    cache_dir/<key>.lock          held while that store is built
    cache_dir/<key>.tmp-*/        a build that is going on, or was killed
    cache_dir/digests.json        spares an unchanged file its hashing

<key> is the beginning of the fingerprint: a changed folder, size or decoder is another store, so nothing ever goes stale.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from tune_cropshield.data.decode import DECODER_VERSION, DecodeError, FileReadError, decode_rgb
from tune_cropshield.data.folder import ImageFile, ImageFolder, scan_folder
from tune_cropshield.errors import DataError, DiskFull, RunFailure

if TYPE_CHECKING:
    from torch import Tensor  # seconds to import, and needed only once a store is mapped: a bad folder is told about at once

FORMAT_VERSION = 1  # raise when the layout above changes
KEY_LENGTH = 16  # hex digits: short enough for Windows paths, long enough never to collide
CHECKED_BLOCKS, BLOCK_BYTES = 64, 64 * 1024  # 4 MiB are read to trust a store of any size
VANISHED = "vanished"  # the reason given for a file that was there when the folder was indexed
MIB = 1024 * 1024

Progress = Callable[[int, int], None]  # (images done, images in all)


class DamagedStore(RunFailure):
    """What lies at the path is not a whole store. `open_store` answers by building it again."""


@dataclass(frozen=True, eq=False, repr=False)
class Store:
    """N decoded images. Pickles as its path, so sending one to another process costs nothing and both share the same memory.

    images: (N, size, size, 3) uint8 on the CPU, mapped read-only: writing to it in place crashes the process.
    labels: (N,) int64, indices into `classes`; paths (relative to `root`, forward slashes) and digests (SHA-256, hex) have N entries too.
    unreadable: (path, reason) of each image that was left out.
    """

    path: Path
    root: Path
    size: int
    fingerprint: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    digests: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    labels: Tensor
    images: Tensor

    @staticmethod
    def load(path: Path, root: Path | None = None) -> Store:
        """Returns the store at `path` after checking its index and a sample of its bytes (milliseconds); raises DamagedStore otherwise.

        root: the folder of the images, where it is not the one the store was built from (a moved folder of equal content shares its store).
        """
        path = Path(path)
        index = _read_index(path)
        import torch

        size, labels = index["size"], index["labels"]
        images = path / "images.u8"
        shape = (len(labels), size, size, 3)
        try:
            if images.stat().st_size != len(labels) * size * size * 3:
                raise DamagedStore(f"{images} has {images.stat().st_size} bytes, not {len(labels) * size * size * 3}")
            if _sampled_crc32(images) != index["images_crc32"]:
                raise DamagedStore(f"{images} has changed since it was written")
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
            unreadable=tuple((name, reason) for name, reason in index["unreadable"]),
            labels=torch.tensor(labels, dtype=torch.int64),
            images=_read_only_tensor(mapped),
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __reduce__(self) -> tuple[Callable[[Path, Path], Store], tuple[Path, Path]]:
        return Store.load, (self.path, self.root)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}: {len(self)} images of {len(self.classes)} classes at {self.size} px from {str(self.root)!r})"


def open_store(
    root: Path,
    size: int,
    cache_dir: Path,
    *,
    max_bad_share: float = 0.05,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Store:
    """Returns the images of the folder `root` decoded to size x size, building their store in `cache_dir` unless a sound one is there.

    Any number of processes may ask at once: one builds, the others wait for it. A killed build leaves nothing that is mistaken for a store.
    max_bad_share: the largest share of images in [0, 1] that may be unreadable; those are left out and listed in `Store.unreadable`.
    progress: called in the calling thread after each image while building; never called when the store is there.
    workers: decoding threads, one per core when None.
    Raises DataError for a folder that cannot be used (see `scan_folder`), too many unreadable images, a class without a readable image or a
    `cache_dir` that must not be written; DiskFull when the disk is full.
    """
    assert size > 0 and (workers is None or workers > 0)
    cache_dir = Path(os.path.abspath(cache_dir))
    folder = scan_folder(root, cache_dir / "digests.json")
    fingerprint = fingerprint_of(folder, size)
    path = cache_dir / fingerprint[:KEY_LENGTH]
    store = _load_if_sound(path, folder.root, fingerprint)
    if store is None:
        with _storage_errors_told(cache_dir, len(folder.files) * size * size * 3):
            cache_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                store = _load_if_sound(path, folder.root, fingerprint)  # another process may have built it while this one waited
                if store is None:
                    _remove_leftovers(cache_dir, path.name)
                    _build(path, folder, size, fingerprint, max_bad_share, progress, workers or _num_cores())
        store = store or Store.load(path, folder.root)
    _check_readable(folder, store.paths, store.unreadable, max_bad_share)
    return store


def user_cache_dir(platform: str, home: Path, env: Mapping[str, str]) -> Path:
    """Returns where this user's caches belong; nothing is read or created here.

    platform as in `sys.platform`; `env` as in `os.environ`. A relative XDG_CACHE_HOME is ignored, as its standard demands.
    """
    if platform == "win32":
        local = env.get("LOCALAPPDATA")
        return (Path(local) if local else home / "AppData" / "Local") / "tune_cropshield"
    if platform == "darwin":
        return home / "Library" / "Caches" / "tune_cropshield"
    xdg = env.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if PurePath(xdg).is_absolute() else home / ".cache") / "tune_cropshield"


def fingerprint_of(folder: ImageFolder, size: int) -> str:
    """Returns the SHA-256 (hex) of all that decides a store's bytes: paths, class names, contents, size, decoder and layout."""
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, DECODER_VERSION, size]).encode())
    for file in sorted(folder.files, key=lambda file: file.path):
        digest.update(json.dumps([file.path, folder.classes[file.label], file.digest]).encode())
    return digest.hexdigest()


# Building


def _build(
    path: Path,
    folder: ImageFolder,
    size: int,
    fingerprint: str,
    max_bad_share: float,
    progress: Progress | None,
    workers: int,
) -> None:
    """Writes the store aside and renames it to `path`. The caller holds its lock."""
    needed, free = len(folder.files) * size * size * 3, shutil.disk_usage(path.parent).free
    if free < needed:  # said before an hour of decoding rather than after it
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path.parent))
    aside = path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    aside.mkdir()
    try:
        with (aside / "images.u8").open("wb") as sink:
            kept, bad = _decode_into(sink, folder, size, progress, workers)
            _sync(sink)
        unreadable = tuple((name, reason) for name, reason, _ in bad)
        _check_readable(folder, tuple(file.path for file in kept), unreadable, max_bad_share)
        index: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "decoder": DECODER_VERSION,
            "fingerprint": fingerprint,
            "size": size,
            "root": str(folder.root),
            "classes": folder.classes,
            "labels": [file.label for file in kept],
            "paths": [file.path for file in kept],
            "digests": [file.digest for file in kept],
            "unreadable": unreadable,
            "try_again": [name for name, _, may_succeed in bad if may_succeed],
            "images_crc32": _sampled_crc32(aside / "images.u8"),
        }
        with (aside / "index.json").open("wb") as sink:
            sink.write(json.dumps(index | {"index_crc32": _index_crc32(index)}).encode("ascii"))
            _sync(sink)
        if path.exists():  # damaged, or nobody would be building
            shutil.rmtree(path)
        os.replace(aside, path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _decode_into(
    sink: BinaryIO, folder: ImageFolder, size: int, progress: Progress | None, workers: int
) -> tuple[list[ImageFile], list[tuple[str, str, bool]]]:
    """Appends each readable image to `sink`; returns their files, and (path, reason, whether another try may succeed) of the others.

    Plain writes in order, not stores into a mapping: a full disk raises here, where a mapping would kill the process (SIGBUS), and an
    unreadable image leaves no hole. A few images per thread are decoded ahead, so memory stays small whatever the folder holds.
    """
    kept: list[ImageFile] = []
    bad: list[tuple[str, str, bool]] = []
    waiting = iter(folder.files)
    ahead: deque[tuple[ImageFile, Future[npt.NDArray[np.uint8]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        for done in range(1, len(folder.files) + 1):
            while len(ahead) < 4 * workers and (next_file := next(waiting, None)) is not None:
                ahead.append((next_file, pool.submit(decode_rgb, folder.root / next_file.path, size)))
            file, future = ahead.popleft()
            try:
                sink.write(future.result().data)
                kept.append(file)
            except DecodeError as error:
                reason = VANISHED if isinstance(error.__cause__, FileNotFoundError) else str(error)
                bad.append((file.path, reason, isinstance(error, FileReadError)))
            if progress is not None:
                progress(done, len(folder.files))
    return kept, bad


def _check_readable(folder: ImageFolder, kept: Sequence[str], unreadable: Sequence[tuple[str, str]], max_bad_share: float) -> None:
    """Raises DataError when too many images, or all of one class, are unreadable. Class names are the first part of a path."""
    if not unreadable:
        return
    first = ", ".join(f"{name} ({reason})" for name, reason in unreadable[:3]) + (", ..." if len(unreadable) > 3 else "")
    total = len(kept) + len(unreadable)
    if len(unreadable) > max_bad_share * total:
        raise DataError(
            f"{len(unreadable)} of {total} images in {str(folder.root)!r} cannot be read, more than the {max_bad_share:.0%} allowed: {first}"
        )
    emptied = sorted(set(folder.classes) - {name.partition("/")[0] for name in kept})
    if emptied:
        raise DataError(f"no image of {', '.join(map(repr, emptied))} in {str(folder.root)!r} can be read: {first}")


def _remove_leftovers(cache_dir: Path, key: str) -> None:
    """Removes killed builds: of `key`, whose lock the caller holds, and of any other store that nobody is building now."""
    for leftover in cache_dir.glob("*.tmp-*"):
        other = leftover.name.partition(".tmp-")[0]
        if other == key:
            shutil.rmtree(leftover, ignore_errors=True)
            continue
        with contextlib.suppress(Timeout), FileLock(cache_dir / f"{other}.lock", timeout=0):
            shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _storage_errors_told(cache_dir: Path, needed_bytes: int) -> Iterator[None]:
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


def _num_cores() -> int:
    """Returns the cores this process may use: fewer than the machine's in a container or under a scheduler."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


# Opening


def _load_if_sound(path: Path, root: Path, fingerprint: str) -> Store | None:
    """Returns the store, or None when it is missing, damaged, another one, or lacks an image that can be read again by now."""
    try:
        store = Store.load(path, root)
        missing = _read_index(path)["try_again"]
    except DamagedStore:
        return None
    return store if store.fingerprint == fingerprint and not any(_can_be_read(root / name) for name in missing) else None


def _can_be_read(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads((path / "index.json").read_bytes())
        checksum = index.pop("index_crc32")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedStore(f"{path} holds no index of a store: {error}") from error
    if checksum != _index_crc32(index) or index.get("format") != FORMAT_VERSION:
        raise DamagedStore(f"the index of {path} has changed since it was written")
    return dict(index)


def _index_crc32(index: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(index, sort_keys=True).encode("ascii"))


def _sampled_crc32(path: Path) -> int:
    """Returns the CRC-32 of evenly spaced blocks, first and last included; of the whole file where it is no larger than they are."""
    size = path.stat().st_size
    checksum = 0
    with path.open("rb", buffering=0) as file:
        for block in range(CHECKED_BLOCKS):
            if size > CHECKED_BLOCKS * BLOCK_BYTES:
                file.seek((size - BLOCK_BYTES) * block // (CHECKED_BLOCKS - 1))
            checksum = zlib.crc32(file.read(BLOCK_BYTES), checksum)
    return checksum


def _read_only_tensor(mapped: npt.NDArray[np.uint8]) -> Tensor:
    """Returns a tensor over the same memory. torch warns that it knows no read-only tensors; `Store` says so where it matters.

    A private, copy-on-write mapping would need no such care, but Windows sets its whole size aside in every process.
    """
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(mapped)
