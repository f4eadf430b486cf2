"""What a name in a folder of photographs says of the file: a photograph, or why not."""

from __future__ import annotations

import os
from functools import cache

from tune_cropshield.data.left_out import Kind
from tune_cropshield.shell import install_command

# What the decoder reads. A name only spares a look at the first bytes: what they say of any other name counts too.
_PHOTOGRAPHS = """
    .jpg .jpeg .jpe .jfif .png .bmp .dib .webp .gif .tif .tiff .ppm .pgm .pbm .pnm .avif .jp2 .j2k
"""
PHOTOGRAPHS = frozenset(_PHOTOGRAPHS.split())
HEIC = frozenset((".heic", ".heif", ".hif"))
# Camera raw files begin as TIFF does, and a reader of TIFF would find their thumbnails.
_NOT_READ = """
    .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .orf .rw2 .raf .srw .pef .x3f .iiq .3fr .erf .mrw .kdc .dcr .raw
    .psd .psb .xcf .tga .pcx .jxl .exr .hdr .dcm .ico .svg .ai .eps
"""
NOT_READ = frozenset(_NOT_READ.split())
_NO_PHOTOGRAPHS = """
    .txt .csv .tsv .json .jsonl .geojson .xml .yaml .yml .toml .ini .cfg .md .rst .log .html .htm .url .lnk
    .webloc .pdf .doc .docx .xls .xlsx .ods .odt .ppt .pptx .py .ipynb .sh .bat .zip .gz .tar .tgz .rar .7z .db
    .sqlite .npy .npz .h5 .hdf5 .mat .pkl .pt .pth .onnx .safetensors .parquet .mp4 .mov .avi .mkv .webm .3gp .m4v
    .mpg .mpeg .wmv .mts .mp3 .wav .m4a .aae .xmp .thm .lrv .sha256 .md5
"""
NO_PHOTOGRAPHS = frozenset(_NO_PHOTOGRAPHS.split())
SYSTEM_FOLDERS = frozenset(
    (
        "@eadir",  # Synology: thumbnails of every photograph
        "@recycle",
        "@recently-snapshot",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "found.000",
        "lost+found",
        "__macosx",
        "__pycache__",
        "~snapshot",
    )
)
SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))

TO_JPEG = "convert them to JPEG"
FORMAT_NOT_READ = f"this format is not read: {TO_JPEG} or PNG"


@cache
def heic_not_read() -> str:
    """Returns why a photograph as iPhones save it is not used, and what helps."""
    return f"HEIC is not read: {TO_JPEG}, or install a reader:  {install_command('pillow-heif')}"


def is_of_the_system(name: str) -> bool:
    """Returns whether a file or folder of this name is hidden, or kept by an operating system or a file server."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS or name.lower() in SYSTEM_FILES


def why_no_photograph(path: str) -> tuple[Kind, str] | None:
    """Returns why the file at `path` is not used, or None for a photograph.

    A known suffix decides. Without one, as in "IMG_1" or "x.jpg?w=300", the file's first bytes do.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix in PHOTOGRAPHS:
        return None
    if suffix in NOT_READ:
        return "format", FORMAT_NOT_READ
    if suffix in NO_PHOTOGRAPHS:
        return "other", "no photograph"
    from tune_cropshield.data.decode import READS_HEIC, Content, content_of  # Pillow takes a moment to import

    if suffix in HEIC:
        return None if READS_HEIC else ("format", heic_not_read())
    try:
        content = content_of(path)
    except OSError as error:
        return "unreadable", error.strerror or str(error)
    if content is Content.HEIC:
        return None if READS_HEIC else ("format", heic_not_read())
    return None if content is Content.PHOTOGRAPH else ("other", "no photograph")
