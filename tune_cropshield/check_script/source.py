"""A training script's text -> its syntax tree, or one line about why it has none."""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
import warnings
from dataclasses import dataclass

from tune_cropshield.errors import UserError

# What only IPython reads, by itself on a line or as what a name is set to: magics, shell calls, questions.
ONLY_IPYTHON = re.compile(r"^(\s*)(?:[%!?]|[\w, ]+=\s*[%!]|[\w.]+\?).*$")
PYTHON_2 = re.compile(
    r"^\s*(print\s+[^=(\s]|exec\s+[^=(\s]|raise\s+[\w.]+\s*,|except\s+[\w.()]+\s*,\s*\w+\s*:)"
    r"|<>|`\w+`|\b0[0-7]+\b|\b\d+[lL]\b|\bur['\"]"
)


@dataclass(frozen=True)
class Source:
    """A script that was read.

    name: as the user gave it. lines: of the text, a notebook's code cells one below the other. tree: with the line
    numbers of the text. comments: by line. cells: of a notebook, the line of the text before each code cell's first.
    unread: (line, what) of parts that are no Python.
    """

    name: str
    lines: tuple[str, ...]
    tree: ast.Module
    comments: dict[int, str]
    cells: tuple[int, ...] = ()
    unread: tuple[tuple[int, str], ...] = ()

    def place(self, line: int) -> tuple[int | None, int]:
        """Returns (code cell, its line) of a line of the text, both from 1; the cell is None but in a notebook."""
        cell = sum(before < line for before in self.cells)
        return (cell, line - self.cells[cell - 1]) if cell else (None, line)


def decoded(content: bytes, name: str) -> str:
    """Returns a file's text, in the encoding that it declares or else in UTF-8, as Python reads it.

    Raises UserError for bytes that are no text in it.
    """
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    except SyntaxError as error:
        if "unknown encoding" in error.msg:
            raise UserError(f"{name}: not Python: its bytes are no text ({error.msg})") from None
        encoding = "utf-8"  # which its first two lines are not in
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        undeclared = ", and it declares no other: save it as UTF-8" if encoding.startswith("utf-8") else ""
        raise UserError(f"{name}:{line}: not Python: its bytes are no text in {encoding}{undeclared}") from None


def parse_source(text: str, name: str) -> Source:
    """Returns the script `text`, which may be a fragment: indented as a whole, or with a notebook's magics.

    Raises UserError naming the line.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        text, tree = parse_text(text)
    except SyntaxError as error:
        line = error.lineno or 1
        wrong = "Python 2: convert it to Python 3 first" if _is_python_2(text, error) else f"not Python: {error.msg}"
        raise UserError(f"{name}:{line}: {wrong}") from None
    except ValueError:  # older Pythons' answer to a null byte
        raise UserError(f"{name}:1: not Python: it holds null bytes") from None
    except (RecursionError, MemoryError):
        raise UserError(f"{name}: nested too deeply to be read") from None
    return Source(name, tuple(text.split("\n")), tree, comments_of(text))


def parse_text(text: str) -> tuple[str, ast.Module]:
    """Returns the text that was parsed in the end, and its tree.

    Only what is no Python as it stands is changed: a fragment is moved to the left margin, and a line that the parser
    refuses, and that only IPython reads, becomes `pass`.

    Raises SyntaxError, ValueError (null bytes), RecursionError or MemoryError.
    """
    try:
        return text, _tree(text)
    except SyntaxError as error:
        first = error
    text = textwrap.dedent(text)
    lines = text.split("\n")
    for _ in range(len(lines)):
        try:
            text = "\n".join(lines)
            return text, _tree(text)
        except SyntaxError as error:
            at = (error.lineno or 1) - 1
            if at >= len(lines) or not ONLY_IPYTHON.match(lines[at]) or _is_open("\n".join(lines[:at])):
                raise (first if error.lineno == first.lineno else error) from None
            lines[at] = ONLY_IPYTHON.sub(r"\1pass", lines[at])
    raise first


def _tree(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes and the like: not what was asked
        return ast.parse(text)


def _is_open(text: str) -> bool:
    """Tells whether `text` ends inside a bracket or a string, so that its next line is no statement of its own."""
    try:
        for _ in tokenize.generate_tokens(io.StringIO(text).readline):
            pass
    except (tokenize.TokenError, SyntaxError) as error:
        return "EOF in multi-line" in str(error) or "unterminated triple-quoted" in str(error)
    return False


def _is_python_2(text: str, error: SyntaxError) -> bool:
    line = [*text.split("\n"), ""][(error.lineno or 1) - 1]
    return "Missing parentheses in call to" in error.msg or PYTHON_2.search(line) is not None


def comments_of(text: str) -> dict[int, str]:
    """Returns a script's comments by line."""
    found = {}
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                found[token.start[0]] = token.string
    except (tokenize.TokenError, SyntaxError):
        pass  # what the parser has accepted, the tokenizer may still trip over: no comments, then
    return found
