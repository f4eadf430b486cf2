"""A notebook -> its code cells as one script."""

from __future__ import annotations

import json
import re

from tune_cropshield.check_script.source import Source, comments_of, parse_source, parse_text
from tune_cropshield.errors import UserError

OTHER_LANGUAGE = re.compile(r"^\s*%%(?!time|timeit|capture|prun)\w+")  # a cell for the shell, for JavaScript, ...


def read_notebook(content: bytes, name: str) -> Source:
    """Returns the code cells of a notebook, one below the other, as one script.

    A cell that is no Python is left out and noted. Raises UserError for what is no notebook, or one of another
    language.
    """
    try:
        notebook = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(f"{name}: not a notebook: it is no JSON") from None
    if not isinstance(notebook, dict) or not isinstance(cells := _cells(notebook), list):
        raise UserError(f"{name}: not a notebook: it has no cells")
    language = _language(notebook)
    if not language.startswith("python"):
        raise UserError(f"{name}: not Python: a notebook in {language}")
    texts: list[str] = []
    before: list[int] = []
    unread: list[tuple[int, str]] = []
    for cell in cells:
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        before.append(sum(text.count("\n") + 1 for text in texts))
        written = cell.get("source", cell.get("input", ""))  # input: of notebooks before version 4
        text = "".join(map(str, written)) if isinstance(written, list) else str(written)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if OTHER_LANGUAGE.match(text):
            text = re.sub("[^\n]", "", text)
        try:
            text, _ = parse_text(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = before[-1] + (getattr(error, "lineno", None) or 1)
            unread.append((line, f"cell {len(before)}, which is not Python: {getattr(error, 'msg', error)}"))
            text = re.sub("[^\n]", "", text)
        texts.append(text)
    script = "\n".join(texts)
    tree = parse_source(script, name).tree
    return Source(name, tuple(script.split("\n")), tree, comments_of(script), tuple(before), tuple(unread))


def _cells(notebook: dict[str, object]) -> object:
    if isinstance(sheets := notebook.get("worksheets"), list):  # before version 4
        return [cell for sheet in sheets if isinstance(sheet, dict) for cell in sheet.get("cells", [])]
    return notebook.get("cells")


def _language(notebook: dict[str, object]) -> str:
    metadata = notebook.get("metadata")
    told = metadata if isinstance(metadata, dict) else {}
    for key, inside in (("language_info", "name"), ("kernelspec", "language")):
        if isinstance(part := told.get(key), dict) and isinstance(part.get(inside), str):
            return str(part[inside]).lower()
    return "python"
