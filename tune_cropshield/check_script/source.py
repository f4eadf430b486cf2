"""A training script's text -> its syntax tree, or one line about why it has none."""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
import warnings
from dataclasses import dataclass
from pathlib import Path

from tune_cropshield.errors import UserError

# Magics and shell calls of a notebook's cell: no Python, but no fault of the script either.
NOTEBOOK_LINE = re.compile(r"^(\s*)[%!?].*$")


@dataclass(frozen=True)
class Source:
    """A script that was read.

    name: as the user gave it. tree: with the line numbers of the file. comments: by line.
    """

    name: str
    lines: tuple[str, ...]
    tree: ast.Module
    comments: dict[int, str]


def read_source(path: Path) -> Source:
    """Returns the script at `path`.

    Raises UserError, with the line where there is one, for a file that is missing or no Python.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {'is a folder, no script' if path.is_dir() else error.strerror}") from None
    if path.suffix == ".ipynb":
        raise UserError(f"{path}: a notebook, no script: jupyter nbconvert --to script {path.name} makes one")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = content.decode(encoding)
    except (SyntaxError, UnicodeDecodeError):
        raise UserError(f"{path}: not Python: its bytes are no text") from None
    return parse_source(text, str(path))


def parse_source(text: str, name: str) -> Source:
    """Returns the script `text`, which may be a fragment: indented as a whole, or with a notebook's magics.

    Raises UserError naming the line.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = textwrap.dedent("\n".join(NOTEBOOK_LINE.sub(r"\1pass", line) for line in text.split("\n")))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes and the like: not what was asked
            tree = ast.parse(text)
    except SyntaxError as error:
        raise UserError(f"{name}:{error.lineno or 1}: not Python: {error.msg}") from None
    except ValueError:  # older Pythons' answer to a null byte
        raise UserError(f"{name}:1: not Python: it holds null bytes") from None
    except (RecursionError, MemoryError):
        raise UserError(f"{name}: nested too deeply to be read") from None
    return Source(name, tuple(text.split("\n")), tree, _comments(text))


def _comments(text: str) -> dict[int, str]:
    found = {}
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                found[token.start[0]] = token.string
    except (tokenize.TokenError, SyntaxError):
        pass  # what the parser has accepted, the tokenizer may still trip over: no comments, then
    return found
