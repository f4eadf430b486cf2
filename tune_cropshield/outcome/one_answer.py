"""Whether a network tells classes apart, or gives nearly every photograph the same answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tune_cropshield.data.class_sizes import is_imbalanced, reached_by_the_largest
from tune_cropshield.training.predictions import Judged

NEARLY_ALL = 0.9  # of the photographs are taken for one class
FEW_RIGHT = 0.5  # of the photographs of all other classes
REMEDY = "class_weights, sampling and --metric val_macro_f1 work against that"


def one_answer_line(pairs: Mapping[tuple[str, str], int], split: str) -> str | None:
    """Returns what always naming the largest class would reach, where it matters, and what the network does beside it.

    It matters where the largest class has many times the photographs of the smallest, or where the network takes nearly
    all photographs for one class and is seldom right on the others. None elsewhere.

    Args:
        pairs: (true class, predicted class) -> photographs.
        split: "val", "test" or "all", with which figures are named.
    """
    true = sizes_of(pairs)
    if not true:
        return None
    stuck, unequal, reached = _stuck(pairs), is_imbalanced(true), reached_by_the_largest(true, split)
    if stuck is None:
        return reached if unequal else None
    return f"{stuck}; {reached}" + (f"; {REMEDY}" if unequal else "")


def pairs_of(rows: Sequence[Judged]) -> Counter[tuple[str, str]]:
    """Returns (true class, predicted class) -> photographs."""
    return Counter((row.true_class, row.predicted) for row in rows)


def pairs_in(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> dict[tuple[str, str], int]:
    """Returns (true class, predicted class) -> photographs, from a matrix whose rows are the true classes."""
    return {
        (true, predicted): count
        for true, counts in zip(classes, confusion, strict=True)
        for predicted, count in zip(classes, counts, strict=True)
    }


def sizes_of(pairs: Mapping[tuple[str, str], int]) -> Counter[str]:
    """Returns true class -> photographs, for the classes that have some."""
    true: Counter[str] = Counter()
    for (name, _), count in pairs.items():
        true[name] += count
    return +true


def _stuck(pairs: Mapping[tuple[str, str], int]) -> str | None:
    """Returns how many photographs the network takes for one class, where that is nearly all it does."""
    predicted: Counter[str] = Counter()
    for (_, name), count in pairs.items():
        predicted[name] += count
    (answer, count), total = predicted.most_common(1)[0], predicted.total()
    others = {pair: number for pair, number in pairs.items() if pair[0] != answer}
    right = sum(number for (name, taken), number in others.items() if name == taken)
    if count < NEARLY_ALL * total or right >= FEW_RIGHT * sum(others.values()):
        return None
    return f"it calls {count} of {total} photographs {answer}"
