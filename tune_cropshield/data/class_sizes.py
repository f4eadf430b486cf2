"""What the sizes of classes do to a figure: imbalance, and validation photographs that are few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tune_cropshield.config.units import counted

IMBALANCED = 3.0  # times as many in the largest class as in the smallest
FEW = 100  # validation photographs; below it one of them is worth more than a point of val_acc
FEW_OF_A_CLASS = 5


def sizes_line(classes: Mapping[str, int]) -> str:
    """Returns how the classes' sizes compare. classes: name -> photographs, at least one class."""
    smallest, largest = min(classes, key=classes.__getitem__), max(classes, key=classes.__getitem__)
    low, high = classes[smallest], classes[largest]
    if low == high:
        return f"{high} in each"
    ratio = f", {high / low:.1f} times as many" if low else ""
    return f"largest : smallest = {high} {largest} : {low} {smallest}{ratio}"


def is_imbalanced(classes: Mapping[str, int]) -> bool:
    """Returns whether the largest class has many times the photographs of the smallest."""
    return max(classes.values()) >= IMBALANCED * min(classes.values())


class AlwaysTheLargest(NamedTuple):
    """What naming the largest class for every photograph scores."""

    largest: str
    accuracy: float
    macro_f1: float
    balanced_accuracy: float


def always_the_largest(classes: Mapping[str, int]) -> AlwaysTheLargest:
    """Returns the largest class and what naming it always scores. classes: name -> photographs, more than none."""
    largest = max(classes, key=classes.__getitem__)
    share = classes[largest] / sum(classes.values())
    return AlwaysTheLargest(largest, share, 2 * share / (1 + share) / len(classes), 1 / len(classes))


def always_the_largest_line(classes: Mapping[str, int]) -> str:
    """Returns what a network has to beat."""
    always = always_the_largest(classes)
    return (
        f"always answering {always.largest} has accuracy {always.accuracy:.3f} and macro F1 {always.macro_f1:.3f} "
        f"(balanced accuracy {always.balanced_accuracy:.3f})"
    )


def reached_by_the_largest(classes: Mapping[str, int], split: str) -> str:
    """Returns what naming the largest class for every photograph would reach. classes: name -> photographs."""
    always = always_the_largest(classes)
    return (
        f"always answering {always.largest} would reach {split}_acc {always.accuracy:.4f}, {split}_macro_f1 "
        f"{always.macro_f1:.4f} and {split}_balanced_acc {always.balanced_accuracy:.4f}"
    )


def validation_line(classes: Mapping[str, int]) -> str:
    """Returns what one validation photograph is worth, and the classes with the fewest.

    classes: name -> validation photographs, one at least in all.
    """
    total = sum(classes.values())
    by_size = sorted(classes.items(), key=lambda item: item[1])
    few = [f"{name} {count}" for name, count in by_size if count < FEW_OF_A_CLASS]
    more = f" and {len(few) - 5} more classes" if len(few) > 5 else ""
    of_classes = f"; some classes have fewer than {FEW_OF_A_CLASS}: {', '.join(few[:5])}{more}" if few else ""
    smallest = by_size[0][1]
    of_smallest = f", and one of the smallest class is {100 / smallest:.0f} points of its recall" if smallest else ""
    return (
        f"{counted(total, 'validation photograph')}: one is {100 / total:.1f} points of val_acc{of_smallest}"
        f"{of_classes}"
    )


def validation_is_small(classes: Mapping[str, int]) -> bool:
    """Returns whether a difference of one photograph shows in a validation figure."""
    return sum(classes.values()) < FEW or min(classes.values()) < FEW_OF_A_CLASS
