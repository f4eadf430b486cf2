"""Class names that are probably one class, written in two ways: "Healthy" and "healthy", "Powdary" and "Powdery"."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

# A word is taken for a slip of another one where so many letters differ, and the shorter of the two has at least so
# many. "rot" and "rust", "scab" and "scald", "tomato" and "potato" (another first letter) are words of their own.
SHORTEST_WORD = {1: 4, 2: 6}
LONGEST_OF_ONE_LETTER = 5  # letters that the longer word has at least, where one differs: "mold" and "mould"
NAMED_AT_MOST = 5


@dataclass(frozen=True)
class LookAlikes:
    """Two class names, the one with fewer photographs first, and in what they differ."""

    rarer: str
    other: str
    differ_in: str


def look_alikes(classes: Mapping[str, int]) -> list[LookAlikes]:
    """Returns the pairs of names that are easily mistaken for each other. classes: name -> photographs."""
    found = []
    for one, other in combinations(sorted(classes), 2):
        differ_in = _differ_in(one, other)
        if differ_in is not None:
            rarer, common = sorted((one, other), key=lambda name: (classes[name], name))
            found.append(LookAlikes(rarer, common, differ_in))
    return found


def look_alike_lines(classes: Mapping[str, int]) -> list[str]:
    """Returns a sentence for each pair, at the end with the line of a settings file that joins them all."""
    pairs = look_alikes(classes)
    lines = [
        f"classes {pair.rarer!r} ({classes[pair.rarer]}) and {pair.other!r} ({classes[pair.other]}) differ only in "
        f"{pair.differ_in}"
        for pair in pairs[:NAMED_AT_MOST]
    ]
    if len(pairs) > NAMED_AT_MOST:
        lines.append(f"{len(pairs) - NAMED_AT_MOST} more pairs of class names are as similar")
    if pairs:
        lines[-1] += f": if they are one, {joined_by(pairs, classes)}"
    return lines


def joined_by(pairs: Sequence[LookAlikes], classes: Mapping[str, int]) -> str:
    """Returns the line of a settings file that joins the classes of all these pairs, as an advice.

    Each takes the name of the largest that it looks like, without spaces at its ends. classes: name -> photographs.
    """
    groups: list[set[str]] = []
    for pair in pairs:
        touched = [group for group in groups if group & {pair.rarer, pair.other}]
        groups = [group for group in groups if group not in touched]
        groups.append({pair.rarer, pair.other}.union(*touched))
    entries = []
    for group in groups:
        name = max(sorted(group), key=lambda of: classes[of]).strip()
        entries += [f"{_toml(other)} = {_toml(name)}" for other in sorted(group - {name})]
    return f"join them in [data] with  merge = {{{', '.join(sorted(entries))}}}"


def _differ_in(one: str, other: str) -> str | None:
    """Returns what two names differ in, where that is next to nothing; None for names of their own."""
    if not re.search(r"[^\W\d_]", one + other):  # "1.5" and "15" are numbers
        return None
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        return "their Unicode form"
    if one.casefold() == other.casefold():
        return "upper and lower case"
    if one.strip() == other.strip():
        return "spaces at an end"
    if _letters(one) == _letters(other):
        return "case, accents, spaces or other separators"
    return _a_slip(_words(one), _words(other))


def _letters(name: str) -> str:
    """Returns the letters and digits of a name alone, in lower case and without accents."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    return "".join(letter for letter in plain if letter.isalnum())


def _words(name: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", name).casefold()
    return re.findall(r"[^\W_]+", "".join(letter for letter in plain if not unicodedata.combining(letter)))


def _a_slip(one: list[str], other: list[str]) -> str | None:
    """Returns that one or two letters of one word differ, where it looks like a slip."""
    different = [(a, b) for a, b in zip(one, other, strict=False) if a != b]
    if len(one) != len(other) or len(different) != 1:
        return None
    short, long = sorted(different[0], key=len)
    if short[0] != long[0] or re.search(r"\d", short + long):
        return None
    letters = _letters_apart(short, long)
    if letters > 2 or len(short) < SHORTEST_WORD[letters] or len(long) < LONGEST_OF_ONE_LETTER:
        return None
    return "one letter" if letters == 1 else "two letters"


def _letters_apart(one: str, other: str) -> int:
    """Returns how many letters must be changed, added, left out or swapped with a neighbour to turn one into the other.

    The optimal string alignment distance: https://en.wikipedia.org/wiki/Damerau-Levenshtein_distance
    """
    before, row = [0] * (len(other) + 1), list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, opposite in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != opposite))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == opposite:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _toml(name: str) -> str:
    """Returns a name as a TOML string; what is not ASCII is escaped, as two forms of it look alike."""
    return json.dumps(name)
