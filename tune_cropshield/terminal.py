"""Sentences for people: a line each in a pipe, folded between words at a terminal's edge."""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from tune_cropshield.files import printable

BEFORE_COMMAND = ":  "  # in a sentence that ends with a command to be pasted


def say(where: Console, sentence: str | Text, *, end: str = "", style: str = "") -> None:
    """Prints a sentence. In a pipe it is one line; on a terminal it is folded between words.

    What is to be copied stays in one piece, to be folded by the terminal alone: a word that is longer than a line, such
    as a path, and a command.

    Args:
        sentence: as text, or with styles of its own. A line break in it, which only a path can hold, is escaped.
        end: what else stays in one piece, behind the sentence.
    """
    text = Text(printable(sentence)) if isinstance(sentence, str) else sentence
    label, mark, command = text.plain.partition(BEFORE_COMMAND)
    first, last = (Text(label + mark.rstrip()), command) if mark else (text, printable(end))
    between = mark[1:] or " " * bool(last)
    if not where.is_terminal or cell_len(first.plain + between + last) <= where.width:
        where.print(first + between + last, style=style, soft_wrap=True)
        return
    for line in [*first.divide(_line_starts(first.plain, where.width)), *([Text(last)] if last else [])]:
        line.rstrip()
        where.print(line, style=style, soft_wrap=True)


def _line_starts(text: str, width: int) -> list[int]:
    """Returns where the second line and those after it start.

    A word that fits into no line starts none: the terminal folds it anyway.
    """
    starts, start = [], 0
    for word in re.finditer(r"\S+", text):
        whole = cell_len(text[start : word.end()])
        if text[start : word.start()].strip() and whole > width >= cell_len(word[0]):
            start = word.start()
            starts.append(start)
    return starts
