"""What one training run needs, as frozen and validated settings; TOML in and out.

`[data]` says which photographs, `[trial]` how a network is trained on them. The same two tables stand in a trial's
config.toml, in best/config.toml and (as far as they are not searched) in a search-space file. Every default is written
here once, with its reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, ValidationInfo, field_validator

from tune_cropshield.config import registry
from tune_cropshield.config.faults import Rule, Settings, described_as, overridden, shown, validated
from tune_cropshield.config.model_names import check_model_name, has_published_weights
from tune_cropshield.config.own_files import with_kept
from tune_cropshield.config.toml_files import SINGLE_QUOTES, read_toml, without_none
from tune_cropshield.files import as_utf8, write_text_atomically
from tune_cropshield.shell import PROGRAM, command

Precision = Literal["fp16", "bf16", "fp32"]
PrecisionChoice = Literal["auto", Precision]  # as a user says it
Bound = Annotated[Annotated[float, Field(gt=0)] | Literal["none"], described_as('a number above 0 or "none"')]
Side = Annotated[int, Field(ge=16, le=1024)]  # px
Batch = Annotated[int, Field(ge=1, le=65536)]  # images; no optimizer has use for more
MOST_EPOCHS = 100_000
Epochs = Annotated[int, Field(le=MOST_EPOCHS)]
Parts = Annotated[int, Field(le=50)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every random generator takes
Fit = Literal["crop", "pad", "squash"]
ClassWeights = Literal["none", "balanced", "effective"]
Sampling = Literal["plain", "balanced"]
ESCAPES = {"\t": r"\t", "\n": r"\n", "\b": r"\b", "\f": r"\f", "\r": r"\r"}  # what TOML makes of a path's backslashes
Weights = Annotated[bool | str, described_as("true, false or the path of a state dict")]


def _path(text: str) -> str:
    """Returns a path as it was written, with ~ as the home folder.

    Raises ValueError for a control character, which "C:\\temp" between double quotes holds, and for a folder whose
    name is no UTF-8.
    """
    if text != as_utf8(text):
        raise ValueError(
            f"must be UTF-8, as a settings file is, but got {as_utf8(text)}: rename it, or use a link to it"
        )
    if any(ord(letter) < 32 for letter in text):
        written = "".join(ESCAPES.get(letter, letter) for letter in text)
        raise ValueError(f"must be a path, but holds a control character; {SINGLE_QUOTES} '{written}'")
    return os.path.expanduser(text)


def _nothing_left_to_train_on(data: DataConfig) -> str | None:
    if data.val_share + data.test_share < 1:
        return None
    return f"`val_share + test_share < 1` must hold, but got {data.val_share} + {data.test_share}"


def _merged_twice(data: DataConfig) -> str | None:
    both = sorted(data.merge.keys() & set(data.merge.values()))
    if not both:
        return None
    return f"`merge` turns one class into another that stays, but {shown(both[0])} stands on both sides"


def _merged_into_nothing(data: DataConfig) -> str | None:
    nameless = sorted(name for name, into in data.merge.items() if not into.strip())
    return f'`merge` must name a class, but {shown(nameless[0])} is to become ""' if nameless else None


def _no_group(data: DataConfig) -> str | None:
    if data.group in GROUP_RULES:
        return None
    known = ", ".join(f'"{rule}"' for rule in GROUP_RULES)
    try:
        groups = re.compile(data.group).groups
    except re.error as error:
        return f"`group` must be {known} or a regular expression, but {shown(data.group)} is none: {error}"
    if groups == 1:
        return None
    return (
        f"`group` must be {known} or a regular expression with one part in brackets, like "
        f"'(plant\\d+)_', but {shown(data.group)} has {groups}"
    )


def _no_such_fold(data: DataConfig) -> str | None:
    return None if data.fold < data.folds else f"`fold < folds` must hold, but got {data.fold} and {data.folds}"


def _two_places(data: DataConfig) -> str | None:
    sides = [name for name in SIDE_FOLDERS if getattr(data, name)]
    others = [name for name in ("dir", "labels") if getattr(data, name)]
    if sides and others:
        return f"photographs come from {' and '.join(others)} or from {', '.join(sides)}, but got both: leave out one"
    missing = [name for name in ("train", "val") if not getattr(data, name)]
    if sides and missing:
        return f"`train` and `val` must be given together, but got {', '.join(sides)} alone: give {missing[0]} too"
    return None


def _unknown_column(data: DataConfig) -> str | None:
    unknown = sorted(data.columns.keys() - set(TABLE_COLUMNS))
    if not unknown:
        return None
    return (
        f"`columns` says which column of a table holds {', '.join(TABLE_COLUMNS)}, but {shown(unknown[0])} is none "
        'of them: write {path = "image_id", label = "disease"}'
    )


def _folders_of_no_class(data: DataConfig) -> str | None:
    if not data.labels or data.class_depth is None:
        return None
    return f"`class_depth` is only used with folders of classes, but the labels come from {data.labels}: leave it out"


FOUND_COPIES, BY_FOLDER, IDENTICAL_FILES = GROUP_RULES = ("found", "folder", "none")
PLACES = ("dir", "labels", "train", "val", "test")  # of [data]: where photographs and their labels come from
SIDE_FOLDERS = ("train", "val", "test")  # those that give a split
# What a table of labels may say of a photograph, under these names or those in `columns`.
TABLE_COLUMNS = ("path", "label", "split", "group", "fold", "weight")
# What does not tell searches apart: where photographs lie, what their table is like (its content counts), which fold.
NOT_COMPARED = (*PLACES, "columns", "folds", "fold")


class DataConfig(Settings):
    """Which photographs, and how they are split."""

    dir: str = Field("", examples=["leaves"])
    """The photographs' folder, with one sub-folder per class; with `labels`, the folder that its paths begin in. A
    search space leaves it out: --data gives it."""
    labels: str = Field("", examples=["labels.csv"])
    """A table (.csv, .parquet, .jsonl) with a row per photograph: its path and its label, and if you like its split,
    group, fold and weight. Paths begin in `dir`, or else in the table's folder."""
    columns: dict[str, str] = Field({}, examples=[{"path": "image_id", "label": "disease"}])
    """Which columns of the table hold path, label, split, group, fold and weight, where they have other names. One that
    is "" is not used."""
    train: str = Field("", examples=["photos/2024"])
    """A folder of training photographs with one sub-folder per class, where your own split lies in folders of any name;
    together with `val`."""
    val: str = Field("", examples=["photos/2025"])
    """With `train`: the folder of validation photographs, with the same classes."""
    test: str = Field("", examples=["photos/other_farm"])
    """With `train`: the folder of test photographs, if there is one."""
    exclude: list[str] = Field([], examples=[["*/blurred/*", "rust/IMG_00*"]])
    """Photographs that are left out, by their paths below the folder: * stands for any text, ? for one letter."""
    val_share: float = Field(0.1, gt=0, lt=1)
    """Share of the photographs that validate: they choose the best epoch and the best trial."""
    test_share: float = Field(0.1, gt=0, lt=1)
    """Share of the photographs that only `evaluate --split test` and the end of a search's final training read."""
    split_seed: Seed = 0  # not the trial's seed: every trial and every confirming run shares one split
    """Number that decides which photograph goes to which part of the split; another number, another split."""
    folds: Parts = Field(1, ge=1)
    """Into how many parts training and validation photographs are dealt for cross-validation; 1 is the plain split."""
    fold: Parts = Field(0, ge=0)
    """Which of the `folds`, counted from 0, validates; the others train. The test photographs stay the same."""
    group: str = Field("found", examples=["folder", "(plant\\d+)_"])
    """Which photographs belong together, so that the split puts all of them into one part: "found" are copies of one
    photograph (turned, mirrored, rescaled, compressed, or by their name) where a split would part them; "folder" adds
    those in one folder inside a class (DATA/rust/plant7); a regular expression adds those in whose path its part in
    brackets is the same; "none" are identical files only."""
    max_bad_share: float = Field(0.05, ge=0, le=1)
    """More unreadable photographs than this share are an error; fewer are listed and left out."""
    fit: Fit = "crop"
    """What becomes of a photograph that is not square: "crop" cuts out its middle (the rest is not seen), "pad" adds a
    border in the mean colour, "squash" presses it to a square."""
    class_depth: Annotated[int, Field(ge=1, le=2)] | None = None
    """How many folders make a class's name: 1 for DATA/rust, 2 for DATA/apple/rust; folders such as train/ and val/ do
    not count. Left out: 1, where that is clear."""
    merge: dict[str, str] = {}
    """Classes that are one: {"Powdary_Mildew" = "Powdery_Mildew"} trains both as the second."""

    rules = (
        Rule(frozenset({"val_share", "test_share"}), _nothing_left_to_train_on),
        Rule(frozenset({"fold", "folds"}), _no_such_fold),
        Rule(frozenset({"group"}), _no_group),
        Rule(frozenset({"merge"}), _merged_twice),
        Rule(frozenset({"merge"}), _merged_into_nothing),
        Rule(frozenset(PLACES), _two_places),
        Rule(frozenset({"columns"}), _unknown_column),
        Rule(frozenset({"labels", "class_depth"}), _folders_of_no_class),
    )

    @field_validator(*PLACES)
    @classmethod
    def _places_are_paths(cls, text: str) -> str:
        return _path(text)

    @property
    def given(self) -> bool:
        """Whether it says where photographs come from."""
        return any(getattr(self, name) for name in PLACES)

    @property
    def place(self) -> str:
        """Where the photographs come from, in messages: the table, the folder, or the folders of a split."""
        return self.labels or self.dir or ", ".join(filter(None, (self.train, self.val, self.test)))

    @property
    def is_there(self) -> bool:
        """Whether something lies where the photographs come from."""
        if self.labels:
            return os.path.isfile(self.labels) and (not self.dir or os.path.isdir(self.dir))
        folders = self.folders
        return bool(folders) and all(os.path.isdir(folder) for folder in folders)

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that are looked through for photographs; none where a table names them."""
        return () if self.labels else tuple(filter(None, (self.dir, self.train, self.val, self.test)))

    def at(self, places: Mapping[str, Any]) -> DataConfig:
        """Returns the same settings for photographs that come from elsewhere. places: some of `PLACES`, or columns."""
        return self.model_copy(update=dict(places))

    @property
    def places(self) -> dict[str, str]:
        """{setting: path} of where the photographs come from."""
        return {name: getattr(self, name) for name in PLACES}


# A setting that would be silently ignored is an error: option -> the setting that switches it on, and at which value.
USED_ONLY_WITH = {
    "momentum": ("optimizer", "sgd"),
    "plateau_patience": ("schedule", "plateau"),
    "plateau_factor": ("schedule", "plateau"),
    "step_epochs": ("schedule", "step"),
    "step_factor": ("schedule", "step"),
    "focal_gamma": ("loss", "focal"),
    "tempered_t1": ("loss", "bi_tempered"),
    "tempered_t2": ("loss", "bi_tempered"),
    "effective_beta": ("class_weights", "effective"),
    "unfreeze_epochs": ("freeze_backbone", False),
    "backbone_lr_factor": ("freeze_backbone", False),
    "layer_decay": ("freeze_backbone", False),
}
GIVEN_TO_OWN = ("optimizer", "schedule")  # a user's own gets all options of ours, and may use them


def _option_is_not_used(option: str, trial: TrialConfig) -> str | None:
    switch, value = USED_ONLY_WITH[option]
    is_default = (
        option not in trial.model_fields_set or getattr(trial, option) == TrialConfig.model_fields[option].default
    )
    chosen = getattr(trial, switch)
    if is_default or chosen == value or (switch in GIVEN_TO_OWN and registry.is_own(chosen)):
        return None
    return f"{option} is only used with {switch} = {shown(value)}, but {switch} is {shown(chosen)}"


def _two_kinds_of_clipping(trial: TrialConfig) -> str | None:
    given = [name for name in ("max_norm", "clip_value", "agc") if getattr(trial, name) != "none"]
    return f"at most one kind of clipping can be on, but got {' and '.join(given)}" if len(given) > 1 else None


def _pair_misses_the_effective_batch(trial: TrialConfig) -> str | None:
    micro, accumulation, batch = trial.micro_batch, trial.accumulation, trial.effective_batch
    if micro is not None and accumulation is not None:
        holds = micro * accumulation == batch
        if holds:
            return None
        return f"`micro_batch * accumulation == effective_batch` must hold, but got {micro} * {accumulation} != {batch}"
    for name, part in (("micro_batch", micro), ("accumulation", accumulation)):
        if part is not None and batch % part:
            return f"`{name}` must divide effective_batch, but got {part} and {batch}"
    return None


def _mixing_lacks_neighbours(trial: TrialConfig) -> str | None:
    micro = trial.micro_batch or trial.effective_batch // (trial.accumulation or 1)
    if not trial.mixes or (micro % 2 == 0 and trial.effective_batch % 2 == 0):
        return None
    return (
        f"mixup and cutmix mix pairs of images, so micro_batch and effective_batch must be even, but got {micro} and "
        f"{trial.effective_batch}"
    )


def _stays_frozen(trial: TrialConfig) -> str | None:
    if trial.unfreeze_epochs < trial.epochs:
        return None
    return (
        f"`unfreeze_epochs < epochs` must hold, but got {trial.unfreeze_epochs} and {trial.epochs}: lower it or train "
        "longer; freeze_backbone = true trains the head alone throughout"
    )


def _no_published_weights(trial: TrialConfig) -> str | None:
    if trial.pretrained is not True or has_published_weights(trial.model):
        return None
    return f"{trial.model} has no published weights: set pretrained = false or give a file"


def _is_epoch(key: object) -> bool:
    return isinstance(key, str) and key.isascii() and key.isdecimal() and str(int(key[:9])) == key


# What `TrialConfig.of_length` changes.
OF_LENGTH = ("epochs", "step_epochs", "progressive_sizes", "warmup_epochs", "unfreeze_epochs")


def stops_early(early_stopping: int, unfreeze_epochs: int, epochs_done: int, best_epoch: int) -> bool:
    """Tells whether a training ends because it has waited long enough for a better epoch than its best one.

    It does not wait while the backbone is frozen.
    """
    return 0 < early_stopping <= epochs_done - max(best_epoch, unfreeze_epochs)


class TrialConfig(Settings):
    """How one network is trained. Everything that changes the result is here, and nothing else."""

    # the network
    model: str = "efficientnet_b0"
    """Network: any classifier of torchvision by its name, any of timm as timm:NAME, tiny_cnn, cropshield_cnn, or your
    own."""
    head: str | None = Field(None, examples=["classifier.1"])
    """Name of the network's last layer, as named_modules() has it. Left out: timm's own for timm's networks, elsewhere
    the last linear or convolutional layer that the network defines."""
    pretrained: Weights = Field(False, examples=["weights.pth"])
    """Weights to begin with: false is random, true is torchvision's or timm's (downloaded once), a path is a state
    dict."""
    freeze_backbone: bool = False
    """Train the last layer (the head) only."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout before the last layer. Left out: as the network has it."""
    image_size: Side = 224
    """Side of the square images, in px."""
    progressive_sizes: dict[Annotated[int, Field(ge=0)], Side] = {}
    """Smaller or larger images from an epoch on: {"0" = 128, "10" = 224} trains at 128 px first."""

    # what it sees
    augment: Literal["none", "conservative", "moderate", "aggressive"] = "moderate"
    """How strongly training images are varied: flipped, turned, cropped, recoloured."""
    mixup: float = Field(0.0, ge=0)
    """MixUp: the alpha of its Beta(alpha, alpha) distribution; 0 is off. Batch sizes must be even."""
    cutmix: float = Field(0.0, ge=0)
    """CutMix: its alpha; 0 is off. With mixup too, each pair of images gets one of the two, at even odds."""
    sampling: Sampling = "plain"
    """"balanced" draws every class equally often: an epoch has as many images as with "plain", which takes each
    photograph once, but those of small classes come several times and of large ones not all."""

    # one optimizer update: effective_batch = micro_batch x accumulation samples
    effective_batch: Batch = 32
    """Images that one update of the weights learns from: micro_batch times accumulation."""
    micro_batch: Batch | None = None
    """Images that go through the network at once. Left out: the whole effective batch, or what accumulation leaves of
    it; in a search, the fastest that fits the memory."""
    accumulation: Batch | None = None
    """Micro-batches that are added up to one update. Left out: effective_batch / micro_batch."""
    eval_batch: Batch | None = None
    """Images at once in validation. Left out: micro_batch."""

    # loss
    loss: str = "cross_entropy"
    """What training makes smaller: "cross_entropy", "focal" (what is right already counts less), "bi_tempered" (wrong
    labels count less), or your own."""
    focal_gamma: float = Field(2.0, ge=0, le=10)  # the paper's, https://arxiv.org/abs/1708.02002
    """Of "focal": how much less a photograph counts the surer the network is of its class; 0 is cross-entropy."""
    tempered_t1: float = Field(0.8, ge=0, le=1)  # a usual pair; both 1 are cross-entropy
    """Of "bi_tempered": below 1, the loss of a photograph is bounded, however wrong it is."""
    tempered_t2: float = Field(1.2, ge=1, le=4)
    """Of "bi_tempered": above 1, wrong labels count less among photographs that are hard to tell apart."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each label that is spread evenly over all classes."""
    class_weights: ClassWeights = "none"
    """More weight for small classes, by their counts among the training photographs: "balanced" is N / (K * count),
    "effective" is milder, by the effective number of photographs."""
    effective_beta: float = Field(0.999, ge=0, lt=1)  # of 0.9, 0.99, 0.999 and 0.9999 in the paper
    """Of "effective": the nearer to 1, the more the counts matter; 0 gives all classes the same weight."""

    # optimizer
    optimizer: str = "adamw"
    """Optimizer: what makes an update of the weights from a gradient."""
    lr: float = Field(1e-4, gt=0)  # the reference's
    """Learning rate, at its highest."""
    unfreeze_epochs: Epochs = Field(0, ge=0)
    """Train the head alone for so many epochs, then the whole network; 0 trains all of it from the start."""
    backbone_lr_factor: float = Field(1.0, gt=0, le=1)
    """What the learning rate is multiplied by for everything but the head; 1 is off."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """What the learning rate is multiplied by for each block that lies further from the head; 1 is off."""
    weight_decay: float = Field(1e-4, ge=0)  # the reference's
    """Weight decay; norm layers and biases get none."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of "sgd"; "onecycle" moves it by up to 0.05 to both sides."""
    max_norm: Bound = "none"
    """Gradient clipping: the largest L2 norm that the whole gradient may have; "none" is off."""
    clip_value: Bound = "none"
    """Gradient clipping: the largest value that each element of the gradient may have; "none" is off."""
    agc: Bound = "none"
    """Adaptive gradient clipping: each unit's largest norm, as a share of its weights' norm; not in the last layer."""

    # learning-rate schedule; time is counted in applied updates
    schedule: str = "plateau"
    """How the learning rate changes: "plateau" lowers it when val_loss stops falling, "onecycle" raises and lowers it
    once, "cosine" lowers it along half a cosine, "step" lowers it every step_epochs, "constant" keeps it."""
    warmup_epochs: float = Field(1.0, ge=0)
    """Epochs in which the learning rate rises, linearly, from lr / 25."""
    plateau_patience: Epochs = Field(3, ge=0)
    """With "plateau": epochs without a lower val_loss before the learning rate is lowered."""
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    """With "plateau": what the learning rate is then multiplied by."""
    step_epochs: Epochs = Field(10, ge=1)
    """With "step": every so many epochs the learning rate is lowered."""
    step_factor: float = Field(0.1, gt=0, lt=1)
    """With "step": what the learning rate is then multiplied by."""

    # run
    epochs: Epochs = Field(25, ge=1)
    """Times that all training photographs are seen."""
    early_stopping: Epochs = Field(0, ge=0)
    """Stop after so many epochs without a better `metric`; 0 never stops early."""
    metric: str = "val_acc"
    """What decides which epoch is the best, so that its weights are kept; in a search it is set in `[search]`."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of a moving average of the weights, which is then what is validated and kept; 0 is off."""
    precision: PrecisionChoice = "auto"
    """Number format of the training step; "auto" is fp16 (mixed precision) on a GPU and fp32 on a CPU."""
    cuda_graphs: bool = True
    """On a GPU, record the training step once as a CUDA graph: up to 4 times as fast with small micro-batches."""
    channels_last: bool = True
    """Memory layout that GPUs convolve faster in."""
    seed: Seed = 0
    """Seed of the random weights, the order of the photographs and their augmentation."""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads; on a CPU they change the last digits of the result. Left out: PyTorch decides."""

    rules = (
        Rule(frozenset({"max_norm", "clip_value", "agc"}), _two_kinds_of_clipping),
        Rule(frozenset({"micro_batch", "accumulation", "effective_batch"}), _pair_misses_the_effective_batch),
        Rule(frozenset({"mixup", "cutmix", "micro_batch", "effective_batch"}), _mixing_lacks_neighbours),
        Rule(frozenset({"model", "pretrained"}), _no_published_weights),
        Rule(frozenset({"unfreeze_epochs", "epochs"}), _stays_frozen),
        *(
            Rule(frozenset({option, switch}), partial(_option_is_not_used, option))
            for option, (switch, _) in USED_ONLY_WITH.items()
        ),
    )

    @field_validator("progressive_sizes", mode="before")
    @classmethod
    def _keys_are_epochs(cls, sizes: object) -> object:
        """TOML's keys are strings: {"5" = 128} means epoch 5."""
        return (
            {int(key) if _is_epoch(key) else key: value for key, value in sizes.items()}
            if isinstance(sizes, dict)
            else sizes
        )

    @field_validator("pretrained")
    @classmethod
    def _weights_are_a_path(cls, weights: bool | str) -> bool | str:
        return _path(weights) if isinstance(weights, str) else weights

    @field_validator("model")
    @classmethod
    def _model_is_known(cls, name: str) -> str:
        return check_model_name(name)

    @field_validator("loss", "optimizer", "schedule", "metric")
    @classmethod
    def _name_is_known(cls, name: str, info: ValidationInfo) -> str:
        assert info.field_name is not None
        return registry.checked_name(info.field_name, name)

    @property
    def mixes(self) -> bool:
        """Whether neighbours are mixed, so that micro-batches must be even."""
        return bool(self.mixup or self.cutmix)

    @property
    def treats_head_apart(self) -> bool:
        """Whether the head learns longer or faster than the rest, so that it must be known which layer it is."""
        return self.unfreeze_epochs > 0 or self.backbone_lr_factor < 1 or self.layer_decay < 1

    @property
    def pair(self) -> tuple[int, int]:
        """(micro_batch, accumulation); with neither given, the whole effective batch at once."""
        micro = self.micro_batch or self.effective_batch // (self.accumulation or 1)
        return micro, self.effective_batch // micro

    def size_at(self, epoch: int) -> int:
        """Returns the side, in px, of the images that epoch `epoch` (from 0) trains on."""
        reached = [at for at in self.progressive_sizes if at <= epoch]
        return self.progressive_sizes[max(reached)] if reached else self.image_size

    def of_length(self, epochs: int) -> TrialConfig:
        """Returns the same with so many epochs, and with what is counted in epochs stretched alike.

        The steps of "step", the epochs at which images grow and those in which the head trains alone keep their share
        of the training. A warm-up keeps its length, and in a shorter training its share. Plateau's patience stays.
        """
        share = epochs / self.epochs
        changed: dict[str, Any] = {
            "epochs": epochs,
            "progressive_sizes": {round(epoch * share): size for epoch, size in self.progressive_sizes.items()},
            "warmup_epochs": self.warmup_epochs * min(share, 1.0),
        }
        if self.unfreeze_epochs:
            changed["unfreeze_epochs"] = min(max(round(self.unfreeze_epochs * share), 1), epochs - 1)
        if self.schedule == "step" or registry.is_own(self.schedule):  # elsewhere it must stay as it is
            changed["step_epochs"] = max(round(self.step_epochs * share), 1)
        return self.model_copy(update=changed)

    @property
    def final_size(self) -> int:
        """The side, in px, of the images it is evaluated on: the one training ends with."""
        return self.size_at(self.epochs - 1)


class RunConfig(Settings):
    """A whole config.toml: enough to train a network again."""

    data: DataConfig = DataConfig()
    trial: TrialConfig = TrialConfig()


def load_config(path: Path, overrides: dict[str, dict[str, Any]] | None = None) -> RunConfig:
    """Returns the run described by `path`, with `overrides` ({"trial": {"epochs": 3}}), which came as flags, over it.

    Where a file of the user's own is gone, the copy of it that lies beside `path` takes its place.

    Raises ConfigError with every fault at once.
    """
    tables = read_toml(path)
    if isinstance(trial := tables.get("trial"), dict):
        tables["trial"] = with_kept(trial, path.parent)
    return validated(RunConfig, *overridden(tables, overrides or {}, str(path)))


def save_config(config: RunConfig, path: Path) -> None:
    """Writes `config` as TOML, aside and renamed, with every setting spelled out."""
    write_text_atomically(path, config_text(config, path.name))


def config_text(config: RunConfig, name: str) -> str:
    """Returns `config` as the text of a TOML file of this name."""
    words = ("train", "--config", name, "--out", "../retrained")
    again = f"# Train this again, in this file's folder:  {command(*words, anywhere=True)}"
    notes = f"{again}\n# with another environment:  {PROGRAM} {' '.join(words)}\n\n"
    return notes + tomli_w.dumps(without_none(config.model_dump()))
