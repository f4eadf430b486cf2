"""A trained network on photographs: its own validation or test photographs, or any other folder's.

What it was trained on is known by content (split.csv), so its photographs are found wherever they have moved, and
others are told from them. Classes are compared by name, never by number.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.config.settings import DataConfig, RunConfig
from tune_cropshield.data.left_out import LeftOut, left_out_lines
from tune_cropshield.data.sources import folders_name_classes, scan_photographs
from tune_cropshield.data.split import TEST, TRAIN, VAL
from tune_cropshield.data.split_file import SplitRow, find_split, rows_of_fold, split_rows
from tune_cropshield.errors import DataError, UserError
from tune_cropshield.files import as_utf8
from tune_cropshield.outcome import words
from tune_cropshield.training.predictions import Judged, judged
from tune_cropshield.training.run_folder import write_json

if TYPE_CHECKING:  # PyTorch takes seconds to import: a wrong folder is told about before
    from tune_cropshield.data.store import Store
    from tune_cropshield.training.metrics import Evaluation

ALL = "all"
JUDGED_PARTS = (VAL, TEST, ALL)
RECORD = "evaluation_{}.json"
WRITTEN = (
    ("evaluation", "json"),
    ("confusion", "csv"),
    ("confusion", "png"),
    ("predictions", "csv"),
    ("wrong", "csv"),
)
UNKNOWN_CLASS = -1
LIKE = 0.85  # of difflib's ratio: names that differ by a letter or two, or by case


@dataclass(frozen=True)
class Photographs:
    """The photographs of a folder that a network is judged on.

    part: "val", "test" or "all". indices: into the store, of those that are judged; labels: of all of the store by the
    network's classes, -1 for a class that it does not know. own: whether the folder holds what the network was trained
    on, and nothing else. expected: how many there would be if none were left out. trained, validated: how many of the
    judged ones have the content of a training photograph, or of a validation photograph only; None where it is not
    known what the network was trained on. unknown: {class: photographs} that were left out. left_out: everything else
    in the folder that is not used.
    """

    store: Store
    part: str
    indices: list[int]
    labels: list[int]
    own: bool
    expected: int
    trained: int | None
    validated: int | None
    unknown: Mapping[str, int]
    left_out: Sequence[LeftOut]

    @property
    def name(self) -> str:
        """What the names of the files about them end on: the part; of another folder, its name behind it."""
        if self.part != ALL or self.own:
            return self.part
        return f"{ALL}_" + re.sub(r"[^\w.-]+", "_", self.store.root.name)


class _Sides:
    """On which sides of its split a network's photographs were."""

    def __init__(self, rows: Sequence[SplitRow]) -> None:
        self._rows = rows
        self._of_file = {(row.photograph, row.digest): row.side for row in rows}
        self._of_content: defaultdict[str, set[str]] = defaultdict(set)
        for row in rows:
            self._of_content[row.digest].add(row.side)

    def holds(self, part: str, path: str, digest: str) -> bool:
        """Tells whether a photograph is one of `part`: the very file, else one of the same content."""
        side = self._of_file.get((path, digest))
        return side == part if side is not None else part in self.of_content(digest)

    def of_content(self, digest: str) -> set[str]:
        return self._of_content.get(digest, set())

    def count(self, part: str) -> int:
        return sum(row.side == part for row in self._rows)

    def are_all(self, digests: Iterable[str]) -> bool:
        """Tells whether these are the contents of the network's photographs, all of them and no others."""
        return self._of_content.keys() == set(digests)


def choose_photographs(
    run_dir: Path,
    config: RunConfig,
    classes: Sequence[str],
    given: Mapping[str, Any],
    part: str | None,
    cache_dir: Path,
) -> Photographs:
    """Returns the photographs to judge the network in `run_dir` on.

    Args:
        given: settings of [data] that say where they come from; empty for those it was trained on.
        part: "val" and "test" are the network's own validation and test photographs, found by content; "all" is the
            whole folder or table. None is "val" for the photographs it was trained on and "all" for others.

    Raises:
        UserError: there are no such photographs.
    """
    from tune_cropshield.data.dataset import unreadable
    from tune_cropshield.data.preparation import judged_on
    from tune_cropshield.data.store import open_store

    named = config.data
    judged_data = _of_others(named, given) if given else named
    rows = _trained_on(run_dir, config, cache_dir)
    its_own = judged_data.dir == named.dir and named.class_depth is None
    if its_own and folders_name_classes(judged_data):
        # What the folders of its own photographs mean was settled when it was trained.
        judged_data = judged_data.model_copy(update={"class_depth": 1})
    try:
        scanned = scan_photographs(judged_data, cache_dir / "digests.json", for_training=False)
    except DataError as error:
        if not named.labels or judged_data.labels:
            raise
        told = (
            f"{error}; or give a table of labels, as the one that it was trained with ({named.labels}): --labels FILE"
        )
        raise DataError(told) from None
    store = open_store(scanned, judged_on(config), cache_dir, max_bad_share=1.0)
    own = _Sides(rows).are_all(store.digests) if rows is not None else not given
    part = part or (VAL if own or not given else ALL)
    if rows is None and part != ALL:  # a run of an earlier version, whose folder has moved
        rows = _split_of(named.at(judged_data.places), config.trial.final_size, cache_dir)
    sides = _Sides(rows or [])

    names = [store.classes[label] for label in store.labels.tolist()]
    number_of = {name: number for number, name in enumerate(classes)}
    labels = [number_of.get(name, UNKNOWN_CLASS) for name in names]
    chosen = [
        index
        for index, (path, digest) in enumerate(zip(store.paths, store.digests, strict=True))
        if part == ALL or sides.holds(part, path, digest)
    ]
    if not chosen:
        raise UserError(_none_of_part(judged_data.place, part, sides, len(store)))
    indices = [index for index in chosen if labels[index] != UNKNOWN_CLASS]
    unknown = Counter(names[index] for index in chosen if labels[index] == UNKNOWN_CLASS)
    if not indices:
        raise UserError(
            f"{judged_data.place} holds none of the network's classes: it knows {', '.join(classes)}, and "
            f"{'its labels' if judged_data.labels else 'the folders'} are {', '.join(sorted(unknown))}"
        )
    met = [sides.of_content(store.digests[index]) for index in indices]
    return Photographs(
        store=store,
        part=part,
        indices=indices,
        labels=labels,
        own=own,
        expected=len(store) + len(store.unreadable) if part == ALL else max(sides.count(part), len(chosen)),
        trained=sum(TRAIN in found for found in met) if rows is not None else None,
        validated=sum(VAL in found and TRAIN not in found for found in met) if rows is not None else None,
        unknown=dict(sorted(unknown.items())),
        left_out=(*scanned.left_out, *unreadable(scanned, store)),
    )


def _of_others(named: DataConfig, given: Mapping[str, Any]) -> DataConfig:
    """Returns [data] of photographs that a network was not trained on, or of its own where these are named again."""
    if given == {"dir": named.dir} and not named.labels:
        return named
    return DataConfig(**given, class_depth=None if "labels" in given else named.class_depth, merge=named.merge)


def _trained_on(run_dir: Path, config: RunConfig, cache_dir: Path) -> list[SplitRow] | None:
    """Returns what the network was trained on; None where that is not known.

    It stands in split.csv. Earlier versions kept none: then the folder is looked at, where it is still there.
    """
    rows = find_split(run_dir)
    if rows is not None:
        return rows_of_fold(rows, config.data)
    if not config.data.is_there:
        return None
    return _split_of(config.data, config.trial.final_size, cache_dir)


def _split_of(config: DataConfig, image_size: int, cache_dir: Path) -> list[SplitRow]:
    from tune_cropshield.data.dataset import open_data

    return split_rows(open_data(config, {image_size}, cache_dir))


def _none_of_part(folder: str, part: str, sides: _Sides, count: int) -> str:
    if not sides.count(part):
        return f"the network has no {part} photographs: that part of its split is empty; give another --split"
    return (
        f"none of the {count} photographs in {folder} is one of the network's {part} photographs; --split all judges "
        "it on all of them"
    )


def evaluate_on(
    photographs: Photographs, config: RunConfig, classes: Sequence[str], weights: Path
) -> tuple[Evaluation, list[Judged]]:
    """Returns the network's figures on these photographs, and what it says of each, in the order of the indices."""
    import torch

    from tune_cropshield.data.feed import ImageFeed
    from tune_cropshield.data.preparation import normalisation_of
    from tune_cropshield.data.windows import evaluation_batches
    from tune_cropshield.device import find_device
    from tune_cropshield.outcome.trained import load_trained
    from tune_cropshield.training.evaluate import Evaluator, evaluation_batch
    from tune_cropshield.training.precision import DTYPES, resolve_precision

    trial, store = config.trial, photographs.store
    device = torch.device(find_device("auto"))
    if trial.threads is not None:
        torch.set_num_threads(trial.threads)
    precision = resolve_precision(trial.precision, device)
    labels_N = torch.tensor(photographs.labels, device=device)
    indices = torch.tensor(photographs.indices)
    feed = ImageFeed(store.images, device)
    batches = evaluation_batches(
        feed,
        labels_N,
        indices,
        evaluation_batch(trial),
        trial.final_size,
        DTYPES[precision],
        normalisation_of(trial.model),
    )
    network = load_trained(trial, len(classes), weights, device)
    found = Evaluator(network, len(classes), precision, device).evaluate(batches)
    rows = judged(
        [store.paths[index] for index in photographs.indices],
        [photographs.labels[index] for index in photographs.indices],
        found.predicted_N.tolist(),
        found.probability_N.tolist(),
        classes,
    )
    return found, rows


def remarks(photographs: Photographs, classes: Sequence[str], rows: Sequence[Judged]) -> list[str]:
    """Returns what must be known beside the figures, a sentence each: what was left out, what it had seen."""
    found = []
    if photographs.unknown:
        named = ", ".join(f"{name} ({count}{_meant(name, classes)})" for name, count in photographs.unknown.items())
        left_out = words.counted(sum(photographs.unknown.values()), "photograph")
        found.append(f"left out: {left_out} of classes that it was not trained on: {named}")
    found += left_out_lines(photographs.left_out)
    met = {row.true_class for row in rows}
    if lacking := [name for name in classes if name not in met]:
        found.append(f"no photographs of {', '.join(lacking)}")
    return [*found, *_seen_before(photographs)]


def _meant(name: str, classes: Sequence[str]) -> str:
    """Returns a hint at the class that a folder may mean, empty where none is like it."""
    plain = {known.strip().casefold(): known for known in classes}
    like = get_close_matches(name.strip().casefold(), plain, 1, LIKE)
    return f", is {plain[like[0]]!r} meant?" if like else ""


def _seen_before(photographs: Photographs) -> list[str]:
    """Says how many of the photographs the network was trained on or chosen by."""
    trained, validated, count = photographs.trained, photographs.validated, len(photographs.indices)
    if trained is None or validated is None:
        return [
            "what it was trained on was not recorded (by an earlier version), and that folder is gone: if this is the "
            "same one, most of these photographs are its training photographs, and --split val or test leaves them out"
        ]
    found = []
    if trained:
        found.append(
            f"{trained} of these {count} photographs are training photographs of this network (equal content): the "
            "accuracy on new photographs will be lower"
        )
    if validated and photographs.part != VAL:
        found.append(f"{validated} of these {count} photographs are those that it was validated and chosen by")
    return found


def keep_evaluations(before: Path, folder: Path, weights_sha256: str | None) -> None:
    """Copies what `evaluate` wrote into the folder `before` to `folder`, where it is of these weights.

    A search that goes on writes best/ anew: the test split, which is meant to be looked at once, stays looked at.
    """
    for record in before.glob(RECORD.format("*")):
        name = record.stem.removeprefix(RECORD.split("{")[0])
        found = read_record(before, name)
        if found is not None and weights_sha256 is not None and found["weights_sha256"] == weights_sha256:
            for kind, suffix in WRITTEN:
                if (file := before / f"{kind}_{name}.{suffix}").exists():
                    shutil.copyfile(file, folder / file.name)


def write_record(folder: Path, name: str, figures: Mapping[str, Any], weights: Path) -> None:
    """Writes evaluation_NAME.json: the figures, and the SHA-256 of the weights that they are of. Raises DiskFull."""
    with open(weights, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_json(folder / RECORD.format(name), {**figures, "weights_sha256": digest})


def free_name(folder: Path, name: str, photographs: Path) -> str:
    """Returns what the names of the files on these photographs end on in `folder`: `name`, or `name`-2, ...

    Files on another folder of photographs, which may bear the same name, are never written over.
    """
    if not name.startswith(f"{ALL}_"):
        return name
    for number in count(1):
        free = name if number == 1 else f"{name}-{number}"
        record = read_record(folder, free)
        if record is None or record.get("data") in (None, as_utf8(str(photographs))):
            return free
    raise AssertionError("unreachable")


def read_record(folder: Path, name: str) -> dict[str, Any] | None:
    """Returns evaluation_NAME.json as it stands in `folder`; None where there is none, or it is damaged."""
    try:
        content: dict[str, Any] = json.loads((folder / RECORD.format(name)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content
