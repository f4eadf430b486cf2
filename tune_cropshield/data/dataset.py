"""A folder of photographs, decoded and split: what every trial of a search trains on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from tune_cropshield.config.faults import shown
from tune_cropshield.config.settings import FOUND_COPIES, DataConfig, Fit
from tune_cropshield.config.units import counted
from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.folder import SAYS_NOTHING, THE_FOLDERS, ImageFolder
from tune_cropshield.data.groups import Grouping, grouping_of, parted
from tune_cropshield.data.left_out import LeftOut
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.data.sources import scan_photographs
from tune_cropshield.data.split import (
    TEST,
    Split,
    check_classes_of_folds,
    check_folds,
    check_given_folds,
    fold_of,
    given_folds_of,
    split_as_given,
    split_by_content,
    split_of,
)
from tune_cropshield.data.split_file import SplitRow
from tune_cropshield.data.store import Store, open_store
from tune_cropshield.errors import DataError
from tune_cropshield.files import printable


@dataclass(frozen=True)
class LeafData:
    """The stores, one for each preparation, and the split. Pickles as paths: cheap to send to a worker.

    All stores hold the same photographs in the same order. left_out: everything in the folder that is not used,
    unreadable photographs among it. given_sides: the sides of the split that are given, none where it was made here;
    given_by: what gives them, in words. fit: of the stores that `store_for` gives, where there are several. keys: of
    each photograph; the split keeps those with equal keys together. copies: groups of photographs that are one (see
    `groups`), as sorted indices. named: how many groups their folders, their paths or a table make; None where nobody
    asked for such; of_table: whether it is a table. folds_N: the fold of each photograph as a table has it, from 0,
    None for those of the test; empty where none does. groups_N: the name of its group in a table, as `folds_N`.
    weights_N: (N,) fp32, what each counts for in the loss, as a table has it; None where none does. notes: on how
    labels were read.
    """

    stores: dict[Preparation, Store]
    split: Split
    left_out: tuple[LeftOut, ...] = ()
    given_sides: frozenset[str] = frozenset()
    fit: Fit = "crop"
    keys: tuple[str, ...] = ()
    copies: tuple[tuple[int, ...], ...] = ()
    named: int | None = None
    given_by: str = THE_FOLDERS
    of_table: bool = False
    folds_N: tuple[int | None, ...] = ()
    groups_N: tuple[str, ...] = ()
    weights_N: Tensor | None = None
    notes: tuple[str, ...] = ()

    @property
    def store(self) -> Store:
        """Any of the stores: their labels, classes and paths are the same."""
        return next(iter(self.stores.values()))

    @property
    def classes(self) -> tuple[str, ...]:
        return self.store.classes

    def store_for(self, image_size: int) -> Store:
        """Returns the store that holds pictures for training at `image_size`."""
        return self.stores[Preparation(image_size, self.fit)]

    def as_said(self, config: DataConfig) -> LeafData:
        """Returns the same photographs, split and fitted as `config` says: another fold, another fit.

        Raises DataError where there is no such fold.
        """
        store = self.store
        labels = store.labels.tolist()
        split = folded(config, self.split, store.classes, labels, self.keys, self.given_sides, self.folds_N)
        return replace(self, fit=config.fit, split=split)


def open_data(
    config: DataConfig,
    image_sizes: Iterable[int],
    cache_dir: Path,
    progress: Callable[[int, int], None] | None = None,
    fits: Iterable[Fit] = (),
    kept: Sequence[SplitRow] | None = None,
    folds: int = 1,
) -> LeafData:
    """Returns the photographs of `config`, split, and decoded under `cache_dir` once for each of `image_sizes`.

    The folder is read once, for all sizes.

    Args:
        fits: where several are needed; left out, that of `config`.
        kept: the split that was written down when a search or a training began. It is used where these are the same
            photographs, also where this version, or a folder that has grown since, would make another one.
        folds: into how many the photographs are to be dealt later, by `as_said`.

    Raises DataError when they cannot be trained on, or a file became unreadable while they were decoded.
    """
    fits = sorted(set(fits)) or [config.fit]
    folder = scan_photographs(config, cache_dir / "digests.json")
    stores = {
        preparation: open_store(folder, preparation, cache_dir, max_bad_share=config.max_bad_share, progress=progress)
        for preparation in [Preparation(*each) for each in product(sorted(set(image_sizes)), fits)]
    }
    _check_same_photographs(folder.root, list(stores.values()))
    store = next(iter(stores.values()))
    sides = {file.path: file.side for file in folder.files}
    given = [side for path in store.paths if (side := sides.get(path)) is not None]
    labels = store.labels.tolist()
    found = grouping_of(config.group, store.paths, folder.layout, store.digests, store.groups_by_look(), folder.said)
    dealt = given_folds(folder, store.paths)
    check_folds(max(folds, config.folds), given, config.place, folder.given_by)
    check_given_folds(max(folds, config.folds), dealt, config.place)
    if dealt:
        check_classes_of_folds(max(folds, config.folds), dealt, labels, store.classes, config.place)
    if kept is not None and [(row.photograph, row.digest) for row in kept] == [
        *zip(store.paths, store.digests, strict=True)
    ]:
        keys = tuple(row.key for row in kept)
        split = folded(config, split_of([row.side for row in kept]), store.classes, labels, keys, given, dealt)
    else:
        keys, split = split_together(config, store.classes, labels, store.digests, found, given, folds, dealt)
    said = [folder.said.get(path, SAYS_NOTHING) for path in store.paths]
    weighted = any(each.weight is not None for each in said)
    return LeafData(
        stores,
        split,
        left_out=(*folder.left_out, *unreadable(folder, store)),
        given_sides=frozenset(given),
        fit=fits[0],
        keys=keys,
        copies=found.copies,
        named=found.named,
        given_by=folder.given_by,
        of_table=found.of_table,
        folds_N=dealt,
        groups_N=tuple(each.group for each in said) if any(each.group for each in said) else (),
        weights_N=torch.tensor([each.weight for each in said], dtype=torch.float32) if weighted else None,
        notes=folder.notes,
    )


def given_folds(folder: ImageFolder, paths: Sequence[str]) -> tuple[int | None, ...]:
    """Returns the fold of each photograph as a table has it, None for those of the test; empty where none does."""
    folds = tuple(folder.said.get(path, SAYS_NOTHING).fold for path in paths)
    return folds if any(fold is not None for fold in folds) else ()


def split_together(
    config: DataConfig,
    classes: Sequence[str],
    labels: Sequence[int],
    digests: Sequence[str],
    found: Grouping,
    given: Sequence[str],
    folds: int = 1,
    given_folds: Sequence[int | None] = (),
) -> tuple[tuple[str, ...], Split]:
    """Returns what the split goes by, a key for each photograph, and the split; see `split_photographs`.

    Copies that nobody has named are kept together only where a split, or one of its folds, would part them, so that all
    others stay where they are; and not where a class would then have too few photographs, which is said (see
    `remarks`).

    Args:
        folds: into how many the photographs are dealt later, where `config` does not say so.
        given_folds: the fold of each, where a table says so. All are used then, so that there is no test unless the
            table names one.

    Raises DataError where a class has too few photographs; those that were named as belonging together count as one.
    """
    folds = max(folds, config.folds)
    if folds > 1 and given_folds and TEST not in given:  # else some folds would lack what the test takes
        config = config.model_copy(update={"test_share": 0.0})
    dealt = [config, *(config.model_copy(update={"folds": folds, "fold": fold}) for fold in range(folds) if folds > 1)]

    def by(keys: Sequence[str]) -> list[Split]:
        return [split_photographs(each, classes, labels, keys, given, given_folds) for each in dealt]

    if found.named is not None:
        try:
            return found.keys, by(found.keys)[0]
        except DataError as error:
            rule = (
                "The groups of the table make" if found.of_table else f"group = {shown(config.group)} in [data] makes"
            )
            raise DataError(f"{error}{_groups_count_as_one(rule, found.keys, digests, labels)}") from None
    plain = by(digests)
    if config.group == FOUND_COPIES and any(parted(found.copies, split) for split in plain):
        try:
            return found.keys, by(found.keys)[0]
        except DataError:
            pass
    return tuple(digests), plain[0]


def _groups_count_as_one(rule: str, keys: Sequence[str], digests: Sequence[str], labels: Sequence[int]) -> str:
    """Returns what a rule for groups makes of the photographs, to be said where they are too few; "" if nothing.

    rule: in words, up to "makes".
    """
    groups, contents = len(set(keys)), len(set(digests))
    if groups == contents:
        return ""
    classes_of: dict[str, set[int]] = {}
    for key, label in zip(keys, labels, strict=True):
        classes_of.setdefault(key, set()).add(label)
    across = sum(len(of) > 1 for of in classes_of.values())
    told = (
        f"; {across} of them in several classes, which a pattern like '^(.*plant\\d+)_' keeps apart" if across else ""
    )
    return f". {rule} {counted(groups, 'group')} of {contents} photographs{told}"


def split_photographs(
    config: DataConfig,
    classes: Sequence[str],
    labels: Sequence[int],
    keys: Sequence[str],
    given: Sequence[str],
    given_folds: Sequence[int | None] = (),
) -> Split:
    """Returns the split of photographs: the given one, by content where none is given; or a fold of it.

    Args:
        labels, keys: one per photograph; those with equal keys stay together.
        given: its side, "train", "val" or "test"; empty where none is given.
        given_folds: its fold; empty where none is given.

    Raises:
        DataError: a class has too few photographs, or folds are asked for beside given validation photographs.
    """
    if given:
        split = split_as_given(labels, keys, classes, given, config.split_seed, config.val_share)
    else:
        split = split_by_content(labels, keys, classes, config.split_seed, config.val_share, config.test_share)
    return folded(config, split, classes, labels, keys, given, given_folds)


def folded(
    config: DataConfig,
    split: Split,
    classes: Sequence[str],
    labels: Sequence[int],
    keys: Sequence[str],
    given: Collection[str],
    given_folds: Sequence[int | None] = (),
) -> Split:
    """Returns the fold of `split` that `config` asks for; `split` itself where it asks for none.

    given_folds: the fold of each photograph, where a table says so: it is used then.

    Raises DataError where the validation photographs are given (`given` holds the sides that are).
    """
    if config.folds == 1:
        return split
    check_folds(config.folds, given, config.place)
    if given_folds:
        return given_folds_of(split, given_folds, classes, labels, config.fold)
    return fold_of(split, labels, keys, classes, config.split_seed, config.folds, config.fold)


def unreadable(folder: ImageFolder, store: Store) -> list[LeftOut]:
    """Returns the photographs that could not be decoded."""
    labels = {file.path: file.label for file in folder.files}
    return [LeftOut(path, "unreadable", reason, folder.classes[labels[path]]) for path, reason in store.unreadable]


def _check_same_photographs(root: Path, stores: Sequence[Store]) -> None:
    """Raises DataError where a file could be read for one store and not for another.

    Place i would be another photograph in each, under the labels of the first.
    """
    everywhere = set.intersection(*(set(store.paths) for store in stores))
    lost = sorted({path for store in stores for path in store.paths} - everywhere)
    if lost:
        raise DataError(
            f"{len(lost)} of the photographs in {str(root)!r} could be read at first but not later, while they were "
            f"decoded ({printable(lost[0])}): start again"
        )
    first = stores[0]
    for store in stores[1:]:
        assert (store.paths, store.digests, store.classes) == (first.paths, first.digests, first.classes)
        assert torch.equal(store.labels, first.labels)


class DeviceData:
    """A `LeafData` on a device: feeds by image size and labels, made once and shared by all the trials of a worker."""

    def __init__(self, data: LeafData, device: torch.device, resident_bytes: int = 0) -> None:
        """Takes the data, the device, and how much of the device may hold copies of the stores.

        A store that does not fit what is left of `resident_bytes` is streamed.
        """
        self.data, self.device = data, device
        self._for_stores = resident_bytes if device.type == "cuda" else 0
        self.labels_N = data.store.labels.to(device)
        self.weights_N = None if data.weights_N is None else data.weights_N.to(device)
        self._feeds: dict[Preparation, ImageFeed] = {}

    def feed(self, image_size: int) -> ImageFeed:
        """Returns the feed of pictures for training at `image_size`."""
        preparation = Preparation(image_size, self.data.fit)
        if preparation not in self._feeds:
            images = self.data.stores[preparation].images
            resident = images.numel() <= self._for_stores - self._stores_bytes
            self._feeds[preparation] = ImageFeed(images, self.device, resident)
        return self._feeds[preparation]

    def as_said(self, config: DataConfig) -> DeviceData:
        """Returns the same data, split and fitted as `config` says. What lies on the device is shared.

        Raises DataError where there is no such fold.
        """
        other = copy.copy(self)
        other.data = self.data.as_said(config)
        return other

    @property
    def resident_bytes(self) -> int:
        """What lies on the device for all trials: the stores' copies so far, the labels and the weights."""
        weights = 0 if self.weights_N is None else self.weights_N.nbytes
        return self.labels_N.nbytes + weights + self._stores_bytes

    @property
    def _stores_bytes(self) -> int:
        return sum(
            self.data.stores[preparation].images.numel() for preparation, feed in self._feeds.items() if feed.resident
        )

    def indices(self, split: str) -> Tensor:
        """Returns the samples of "train", "val" or "test", int64 on the CPU.

        Raises DataError where there are none: a given split may have no test photographs.
        """
        indices = getattr(self.data.split, split)
        if not len(indices):
            raise DataError(
                f"{str(self.data.store.root)!r} holds no {split} photographs: its folders name other parts of a split"
            )
        return torch.from_numpy(indices)
