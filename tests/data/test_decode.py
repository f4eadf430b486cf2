from __future__ import annotations

import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tune_cropshield.data.decode import DECODER_VERSION, DecodeError, FileReadError, decode_rgb

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def colour_of(path: Path) -> tuple[int, ...]:
    photograph = decode_rgb(path)
    assert photograph.mode == "RGB"
    pixels = np.asarray(photograph)
    assert (pixels == pixels[8, 8]).all()
    return tuple(int(value) for value in pixels[8, 8])


def quadrants(size: int = 32) -> Image.Image:
    """Red top left, green top right, blue bottom left, white bottom right."""
    image = Image.new("RGB", (size, size), WHITE)
    half = size // 2
    image.paste(RED, (0, 0, half, half))
    image.paste(GREEN, (half, 0, size, half))
    image.paste(BLUE, (0, half, half, size))
    return image


def corners(photograph: Image.Image) -> list[tuple[int, ...]]:
    """Top left, top right, bottom left, bottom right, to the nearest of 0 and 255."""
    pixels = np.asarray(photograph)
    places = (pixels[2, 2], pixels[2, -3], pixels[-3, 2], pixels[-3, -3])
    return [tuple(255 * int(value > 127) for value in place) for place in places]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGB", (200, 100, 50), (200, 100, 50)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 32896, (128, 128, 128)),
        ("I;16", 300, (1, 1, 1)),
        ("LA", (0, 255), (0, 0, 0)),
        ("LA", (0, 0), (255, 255, 255)),
        ("RGBA", (200, 100, 50, 255), (200, 100, 50)),
        ("RGBA", (200, 100, 50, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
    ],
)
def test_every_png_mode_becomes_the_right_rgb(
    tmp_path: Path, mode: str, colour: Any, expected: tuple[int, ...]
) -> None:
    assert colour_of(save(tmp_path / "1.png", Image.new(mode, (40, 30), colour))) == expected


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([9, 9, 9, 200, 100, 50])
    assert colour_of(save(tmp_path / "1.png", image)) == (200, 100, 50)


@pytest.mark.parametrize(
    ("transparency", "expected"), [(1, (255, 255, 255)), (0, (0, 0, 0)), (bytes([255, 51]), (204, 204, 204))]
)
def test_a_transparent_palette_entry_shows_white(
    tmp_path: Path, transparency: int | bytes, expected: tuple[int, ...]
) -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([200, 100, 50, 0, 0, 0])
    assert colour_of(save(tmp_path / "1.png", image, transparency=transparency)) == expected


def test_a_transparent_colour_of_an_rgb_png_shows_white(tmp_path: Path) -> None:
    assert colour_of(save(tmp_path / "1.png", Image.new("RGB", (20, 20), RED), transparency=RED)) == (255, 255, 255)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = save(tmp_path / "1.jpg", Image.new("CMYK", (32, 32), (0, 255, 255, 0)), quality=100)
    assert np.abs(np.subtract(colour_of(path), RED)).max() <= 3


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "webp", "gif"])
def test_other_formats_are_read(tmp_path: Path, suffix: str) -> None:
    path = save(
        tmp_path / f"1.{suffix}",
        Image.new("RGB", (32, 32), (200, 100, 50)),
        **({"lossless": True} if suffix == "webp" else {}),
    )
    assert np.abs(np.subtract(colour_of(path), (200, 100, 50))).max() <= 3


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [RED, GREEN, BLUE, WHITE]),
        (2, [GREEN, RED, WHITE, BLUE]),
        (3, [WHITE, BLUE, GREEN, RED]),
        (4, [BLUE, WHITE, RED, GREEN]),
        (5, [RED, BLUE, GREEN, WHITE]),
        (6, [BLUE, RED, WHITE, GREEN]),
        (7, [WHITE, GREEN, BLUE, RED]),
        (8, [GREEN, WHITE, RED, BLUE]),
        (99, [RED, GREEN, BLUE, WHITE]),
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation_is_applied(
    tmp_path: Path, suffix: str, orientation: int, expected: list[tuple[int, ...]]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(
        tmp_path / f"1.{suffix}",
        quadrants(),
        exif=exif,
        **({"quality": 95, "subsampling": 0} if suffix == "jpg" else {}),
    )
    assert corners(decode_rgb(path)) == expected


def test_damaged_exif_does_not_spoil_a_sound_picture(tmp_path: Path) -> None:
    path = save(
        tmp_path / "1.jpg",
        quadrants(),
        exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x09",
        quality=95,
        subsampling=0,
    )
    assert corners(decode_rgb(path)) == [RED, GREEN, BLUE, WHITE]


def test_a_photograph_that_lies_on_its_side_is_turned_upright_as_a_whole(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    path = save(tmp_path / "1.png", Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(np.asarray(decode_rgb(path)), np.rot90(pixels, -1))


def test_a_large_jpeg_is_decoded_at_its_own_size_pixel_by_pixel(tmp_path: Path) -> None:
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
    path = save(tmp_path / "1.jpg", coarse.resize((1600, 1200), Image.Resampling.BICUBIC), quality=95)
    with Image.open(path) as plain:
        np.testing.assert_array_equal(np.asarray(decode_rgb(path)), np.asarray(plain))


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_a_truncated_file_is_an_error_and_never_a_half_grey_picture(tmp_path: Path, suffix: str, keep: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"1.{suffix}", Image.fromarray(pixels))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DecodeError):
        decode_rgb(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"this is a text file", "not an image"),
        (b"", "empty file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "not an image"),
        (b"\xff\xd8\xff\xe0", "not an image"),
    ],
)
def test_something_else_named_jpg_is_an_error(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "1.jpg").write_bytes(content)
    with pytest.raises(DecodeError, match=f"^{reason}$"):
        decode_rgb(tmp_path / "1.jpg")


def test_a_missing_file_can_be_told_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileReadError, match="No such file or directory") as caught:
        decode_rgb(tmp_path / "1.jpg")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("dimensions", [(1, 1), (7, 100), (100, 7)])
def test_an_absurdly_small_image_is_an_error(tmp_path: Path, dimensions: tuple[int, int]) -> None:
    path = save(tmp_path / "1.png", Image.new("RGB", dimensions))
    with pytest.raises(DecodeError, match=rf"^only {dimensions[0]}x{dimensions[1]} pixels, at least 8x8 are needed$"):
        decode_rgb(path)


def png_of_claimed_size(width: int, height: int) -> bytes:
    """A PNG whose header promises a size and whose body holds nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png_of_claimed_size(50_000, 50_000))
    with pytest.raises(DecodeError, match="decompression bomb"):
        decode_rgb(tmp_path / "1.png")


def test_a_merely_large_image_gives_no_warning_even_from_many_threads(tmp_path: Path) -> None:
    """Pillow warns above 89 million pixels; `catch_warnings` in several threads at once is known to leave foreign
    filters behind.
    """
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x09"  # Pillow warns about this as well
    path = save(tmp_path / "1.jpg", quadrants(), exif=exif)
    big = tmp_path / "2.png"
    big.write_bytes(png_of_claimed_size(10_000, 10_000))  # warned about when opened; then fails for want of pixels
    faults: list[BaseException] = []

    def decode_often() -> None:
        try:
            for _ in range(50):
                decode_rgb(path)
            with pytest.raises(DecodeError, match=r"truncated|broken"):
                decode_rgb(big)
        except BaseException as error:
            faults.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        threads = [threading.Thread(target=decode_often) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert warnings.filters == before
    assert faults == []


def test_the_decoder_version_names_pillows() -> None:
    import PIL

    assert f"2+pillow{PIL.__version__}" == DECODER_VERSION
