"""The files of a store, and how they are known to be whole."""

from __future__ import annotations

import json
import os
import zlib
from io import FileIO
from pathlib import Path
from typing import Any

from tune_cropshield.data.near_copies import THUMBNAIL_SIDE
from tune_cropshield.errors import RunFailure

FORMAT_VERSION = 3  # raise when the layout of a store changes
IMAGES, THUMBNAILS, INDEX, COPIES = "images.u8", "thumbnails.u8", "index.json", "copies.json"
CHECKED_BLOCKS, BLOCK_BYTES = 64, 64 * 1024  # 4 MiB are read to trust a store of any size


class DamagedStore(RunFailure):
    """What lies at the path is not a whole store. `open_store` answers by building it again."""


def read_index(path: Path) -> dict[str, Any]:
    """Returns the index of the store at `path`, without its checksum.

    Raises DamagedStore where there is none that is whole.
    """
    try:
        index = json.loads((path / INDEX).read_bytes())
        checksum = index.pop("index_crc32")
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedStore(f"{path} holds no index of a store: {error}") from error
    if checksum != index_crc32(index) or index.get("format") != FORMAT_VERSION:
        raise DamagedStore(f"the index of {path} has changed since it was written")
    return dict(index)


def index_crc32(index: dict[str, Any]) -> int:
    """Returns the CRC-32 of an index without its checksum."""
    return zlib.crc32(json.dumps(index, sort_keys=True).encode("ascii"))


def sampled_crc32(file: FileIO) -> int:
    """Returns the CRC-32 of evenly spaced blocks of a file, opened anew; first and last included.

    A file that is no larger than they are is read whole.
    """
    size = os.fstat(file.fileno()).st_size
    checksum = 0
    for block in range(CHECKED_BLOCKS):
        if size > CHECKED_BLOCKS * BLOCK_BYTES:
            file.seek((size - BLOCK_BYTES) * block // (CHECKED_BLOCKS - 1))
        checksum = zlib.crc32(file.read(BLOCK_BYTES), checksum)
    return checksum


def check_whole(images: FileIO, thumbnails: FileIO, index: dict[str, Any]) -> None:
    """Raises DamagedStore where the files of a store, opened anew, are not those that its index tells of."""
    count = len(index["labels"])
    for file, side in ((images, index["size"]), (thumbnails, THUMBNAIL_SIDE)):
        size = os.fstat(file.fileno()).st_size
        if size != count * side**2 * 3:
            raise DamagedStore(f"{file.name} has {size} bytes, not {count * side**2 * 3}")
    if sampled_crc32(images) != index["images_crc32"]:
        raise DamagedStore(f"{images.name} has changed since it was written")
