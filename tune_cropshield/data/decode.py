"""An image file of any common mode -> an upright RGB photograph."""

from __future__ import annotations

import enum
import importlib
import importlib.metadata
import io
import threading
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL
from PIL import ExifTags, Image, UnidentifiedImageError

from tune_cropshield.data.names import heic_not_read

READS_HEIC = find_spec("pillow_heif") is not None  # the optional reader, of the extra "heic"
if READS_HEIC:
    importlib.import_module("pillow_heif").register_heif_opener()
# By content, as names lie; EPS and PDF have no business here.
FORMATS = (
    *("JPEG", "PNG", "BMP", "DIB", "WEBP", "GIF", "TIFF", "PPM", "JPEG2000"),
    *(("AVIF",) if find_spec("PIL.AvifImagePlugin") is not None else ()),  # Pillow has it since 11.3
    *(("HEIF",) if READS_HEIC else ()),
)
# Part of every store's key: raise the 2 when decoded bytes change.
DECODER_VERSION = f"2+pillow{PIL.__version__}" + (
    f"+heif{importlib.metadata.version('pillow-heif')}" if READS_HEIC else ""
)
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # ISO/IEC 23008-12
MIN_SIDE = 8  # pixels; below it a file is an icon or a mistake, and enlarging it would train on nothing
# EXIF orientation -> what makes it upright
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# `catch_warnings` swaps the process's filters: two threads in it at once would leave them swapped.
_filters_lock = threading.Lock()


class Content(enum.Enum):
    """What a file's first bytes say."""

    PHOTOGRAPH = enum.auto()
    HEIC = enum.auto()
    OTHER = enum.auto()


class DecodeError(ValueError):
    """The file holds no image that can be decoded; the message says why."""


class FileReadError(DecodeError):
    """The file's bytes could not be read: another try may succeed. The OSError is its `__cause__`."""


def content_of(path: str) -> Content:
    """Returns what the file at `path` is by its first bytes; whether it is whole shows only when it is decoded.

    Raises OSError where it cannot be read.
    """
    with open(path, "rb") as file:
        if _is_heic(file.read(12)):
            return Content.HEIC
        file.seek(0)
        try:
            with _filters_lock, warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"PIL\.")
                with Image.open(file, formats=FORMATS):
                    return Content.PHOTOGRAPH
        except Exception:  # a text that begins like a picture makes Pillow's readers raise nearly anything
            return Content.OTHER


def size_in_header(path: Path) -> tuple[int, int] | None:
    """Returns width and height of an image in px, as it lies in the file, without decoding it.

    None where the file's first bytes say none. No warnings; safe in threads.
    """
    try:
        with _filters_lock, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(path, formats=FORMATS) as image:
                return image.size
    except Exception:  # as in content_of
        return None


def _is_heic(first_bytes: bytes) -> bool:
    return first_bytes[4:8] == b"ftyp" and first_bytes[8:12] in HEIC_BRANDS


def decode_rgb(path: Path) -> Image.Image:
    """Returns the whole image, upright, in mode RGB, every pixel as it was saved.

    EXIF orientation is applied; transparency is laid over white; 16-bit grey is scaled to 8 bits; of an animation the
    first frame is taken; colour profiles are ignored. Raises DecodeError for anything that is not wholly decodable, an
    image under 8 pixels on a side, or one over about 179 million pixels (Pillow's own limit against decompression
    bombs); FileReadError when the file is gone or unreadable. No warnings; safe in threads.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileReadError(error.strerror or str(error)) from error
    try:
        return _decode(content)
    except (DecodeError, MemoryError):  # out of memory is no fault of this file
        raise
    except UnidentifiedImageError as error:
        why = heic_not_read() if _is_heic(content[:12]) else "not an image" if content else "empty file"
        raise DecodeError(why) from error
    except Image.DecompressionBombError as error:
        raise DecodeError("too many pixels (decompression bomb?)") from error
    except Exception as error:
        # On damaged files Pillow's readers raise nearly anything: OSError, SyntaxError, struct.error ...
        raise DecodeError(
            str(error) if isinstance(error, OSError | SyntaxError) else f"{type(error).__name__}: {error}"
        ) from error


def _decode(content: bytes) -> Image.Image:
    with _filters_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    with image:
        if min(image.size) < MIN_SIDE:
            raise DecodeError(f"only {image.width}x{image.height} pixels, at least {MIN_SIDE}x{MIN_SIDE} are needed")
        image.load()
        with _filters_lock, warnings.catch_warnings():
            # Damaged EXIF is no reason to complain about a sound picture.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            orientation = image.getexif().get(ExifTags.Base.Orientation)
        photograph = _rgb(image)
        return photograph.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else photograph


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        # I;16 and its byte orders; older Pillow opens 16-bit PNG as 32-bit I. `convert` would clip at 255.
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise DecodeError("floating-point pixels have no known range")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
