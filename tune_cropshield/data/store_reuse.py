"""What earlier stores hold of a folder's photographs: their pictures are copied, not decoded again.

A photograph is known by its content. One that was added is decoded, one that was renamed, or stands beside others that
are gone, is copied; one whose content has changed is another photograph.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tune_cropshield.data.decode import DECODER_VERSION
from tune_cropshield.data.digests import instead_of_content
from tune_cropshield.data.folder import ImageFolder
from tune_cropshield.data.near_copies import THUMBNAIL_SIDE
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.data.store_files import IMAGES, INDEX, THUMBNAILS, DamagedStore, check_whole, read_index

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class KnownPicture:
    """Where an earlier store holds a photograph's picture and thumbnail. size: the photograph's width and height."""

    images: FileIO
    thumbnails: FileIO
    lock: threading.Lock  # of both files, whose places are one for all threads
    place: int
    side: int
    size: tuple[int, int]

    def read(self) -> tuple[Pixels, Pixels] | None:
        """Returns the picture and the thumbnail; None where they cannot be read."""
        try:
            with self.lock:
                return _read(self.images, self.place, self.side), _read(self.thumbnails, self.place, THUMBNAIL_SIDE)
        except (OSError, ValueError):  # ValueError: it has become shorter
            return None


def _read(file: FileIO, place: int, side: int) -> Pixels:
    file.seek(place * side * side * 3)
    return np.frombuffer(file.read(side * side * 3), np.uint8).reshape(side, side, 3)


@contextmanager
def known_pictures(cache_dir: Path, folder: ImageFolder, preparation: Preparation) -> Iterator[dict[str, KnownPicture]]:
    """Yields what the stores in `cache_dir` hold of a folder's photographs, by SHA-256; open for as long as the block.

    Only a whole store of the same preparation and decoder counts. Files are opened before they are checked: another
    process may remove the store meanwhile, or build it again.
    """
    wanted = {file.digest for file in folder.files if file.digest != instead_of_content(folder.root, file.path)}
    known: dict[str, KnownPicture] = {}
    with ExitStack() as opened:
        for path in sorted(index.parent for index in cache_dir.glob(f"*/{INDEX}") if ".tmp-" not in index.parent.name):
            if known.keys() == wanted:
                break
            try:
                with ExitStack() as stack:
                    images = stack.enter_context(FileIO(path / IMAGES))
                    thumbnails = stack.enter_context(FileIO(path / THUMBNAILS))
                    index = read_index(path)
                    if not _is_alike(index, preparation) or not (wanted - known.keys()).intersection(index["digests"]):
                        continue
                    check_whole(images, thumbnails, index)
                    opened.enter_context(stack.pop_all())
            except (OSError, DamagedStore):
                continue
            lock = threading.Lock()
            for place, (digest, (width, height)) in enumerate(zip(index["digests"], index["sizes"], strict=True)):
                if digest in wanted:
                    side = preparation.store_side
                    known.setdefault(digest, KnownPicture(images, thumbnails, lock, place, side, (width, height)))
        yield known


def _is_alike(index: dict[str, Any], preparation: Preparation) -> bool:
    """Tells whether a store's pictures were made as `preparation` makes them."""
    made = index["decoder"], index["size"], index["fit"]
    return made == (DECODER_VERSION, preparation.store_side, preparation.fit)
