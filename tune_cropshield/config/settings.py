"""What one training run needs, as frozen and validated settings; TOML in and out.

`[data]` says which photographs, `[trial]` how a network is trained on them. The same two tables stand in a trial's
config.toml, in best/config.toml and (as far as they are not searched) in a search-space file. Every default is written
here once, with its reason.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, ValidationInfo, field_validator

from tune_cropshield.config import registry
from tune_cropshield.config.faults import Rule, Settings, described_as, overridden, shown, validated
from tune_cropshield.config.model_names import check_model_name, is_torchvisions
from tune_cropshield.config.toml_files import SINGLE_QUOTES, read_toml, without_none
from tune_cropshield.files import as_utf8, write_text_atomically

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
ESCAPES = {"\t": r"\t", "\n": r"\n", "\b": r"\b", "\f": r"\f", "\r": r"\r"}  # what TOML makes of a path's backslashes
Weights = Annotated[bool | str, described_as("true, false or the path of a state dict")]


def _path(text: str) -> str:
    """Returns a path as it was written, with ~ as the home folder.

    Raises ValueError for a control character, which "C:\\temp" between double quotes holds, and for a folder whose
    name is no UTF-8.
    """
    if text != as_utf8(text):
        raise ValueError(
            f"must be UTF-8, as a settings file is, but got {as_utf8(text)}: rename it, or give a link to it"
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
    return f"`merge` joins a class with one that stays, but {shown(both[0])} is both joined and joined with"


def _merged_into_nothing(data: DataConfig) -> str | None:
    nameless = sorted(name for name, into in data.merge.items() if not into.strip())
    return f'`merge` must name a class, but {shown(nameless[0])} is to join ""' if nameless else None


def _no_such_fold(data: DataConfig) -> str | None:
    return None if data.fold < data.folds else f"`fold < folds` must hold, but got {data.fold} and {data.folds}"


class DataConfig(Settings):
    """Which photographs, and how they are split."""

    dir: str = ""  # one sub-folder per class; "" in a search-space file: given by --data, or synthetic
    val_share: float = Field(0.1, gt=0, lt=1)
    test_share: float = Field(0.1, gt=0, lt=1)  # read once, for the winner
    split_seed: Seed = 0  # not the trial's seed: every trial and every confirming run shares one split
    # 1: the split itself. More: train and validation photographs are dealt into so many folds; `fold`, counted from 0,
    # validates and the others train. The test photographs stay the same.
    folds: Parts = Field(1, ge=1)
    fold: Parts = Field(0, ge=0)
    # More unreadable photographs than this are an error; fewer are listed and left out.
    max_bad_share: float = Field(0.05, ge=0, le=1)

    # What becomes of a photograph that is not square. crop: its middle is cut out, the rest is not seen. pad: all of it
    # is seen, with a border in the mean colour. squash: all of it is seen, pressed to a square.
    fit: Fit = "crop"

    # How many folders make a class's name: 1 for DATA/rust, 2 for DATA/apple/rust; left out: 1 where that is plain.
    # Folders that name the sides of a split do not count: DATA/train/apple/rust is 2.
    class_depth: Annotated[int, Field(ge=1, le=2)] | None = None
    merge: dict[str, str] = {}  # classes that are one: {"Powdary_Mildew" = "Powdery_Mildew"} trains both as the second

    rules = (
        Rule(frozenset({"val_share", "test_share"}), _nothing_left_to_train_on),
        Rule(frozenset({"fold", "folds"}), _no_such_fold),
        Rule(frozenset({"merge"}), _merged_twice),
        Rule(frozenset({"merge"}), _merged_into_nothing),
    )

    @field_validator("dir")
    @classmethod
    def _dir_is_a_path(cls, text: str) -> str:
        return _path(text)


# A setting that would be silently ignored is an error: option -> the setting that switches it on, and at which value.
USED_ONLY_WITH = {
    "momentum": ("optimizer", "sgd"),
    "plateau_patience": ("schedule", "plateau"),
    "plateau_factor": ("schedule", "plateau"),
    "step_epochs": ("schedule", "step"),
    "step_factor": ("schedule", "step"),
}


def _option_is_not_used(option: str, trial: TrialConfig) -> str | None:
    switch, value = USED_ONLY_WITH[option]
    is_default = (
        option not in trial.model_fields_set or getattr(trial, option) == TrialConfig.model_fields[option].default
    )
    chosen = getattr(trial, switch)
    if is_default or chosen == value or registry.is_own(chosen):  # a user's own may use what it is given
        return None
    return f'{option} is only used with {switch} = "{value}", but {switch} is "{chosen}"'


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
        f"mixup and cutmix mix neighbours, so micro_batch and effective_batch must be even, but got {micro} and "
        f"{trial.effective_batch}"
    )


def _no_published_weights(trial: TrialConfig) -> str | None:
    if trial.pretrained is not True or is_torchvisions(trial.model):
        return None
    return f"{trial.model} has no published weights: set pretrained = false or give a file"


def _is_epoch(key: object) -> bool:
    return isinstance(key, str) and key.isascii() and key.isdecimal() and str(int(key[:9])) == key


OF_LENGTH = ("epochs", "step_epochs", "progressive_sizes", "warmup_epochs")  # what `TrialConfig.of_length` changes


class TrialConfig(Settings):
    """How one network is trained. Everything that changes the result is here, and nothing else."""

    # the network
    model: str = "efficientnet_b0"
    pretrained: Weights = False  # true: torchvision's weights (downloaded); a string: a local state dict
    freeze_backbone: bool = False  # only the head learns
    dropout: float | None = Field(None, ge=0, lt=1)  # before the head; left out: the architecture's own
    image_size: Side = 224  # square
    # {epoch: px} from that epoch on; image_size before the first.
    progressive_sizes: dict[Annotated[int, Field(ge=0)], Side] = {}

    # what it sees
    augment: Literal["none", "conservative", "moderate", "aggressive"] = "moderate"
    mixup: float = Field(0.0, ge=0)  # alpha of Beta(alpha, alpha); 0 is off
    cutmix: float = Field(0.0, ge=0)  # with mixup too, each pair of images takes one of them at even odds

    # one optimizer update: effective_batch = micro_batch x accumulation samples
    effective_batch: Batch = 32
    micro_batch: Batch | None = None  # left out: the largest that fits (see the plan); an execution detail
    accumulation: Batch | None = None
    eval_batch: Batch | None = None  # left out: micro_batch

    # loss
    loss: str = "cross_entropy"  # or your own, as file.py:Name
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    # balanced: N / (K * count), for folders of very different sizes.
    class_weights: Literal["none", "balanced"] = "none"

    # optimizer
    optimizer: str = "adamw"  # adamw, sgd, or your own, as file.py:name
    lr: float = Field(1e-4, gt=0)  # the reference's
    weight_decay: float = Field(1e-4, ge=0)  # the reference's; never on norms and biases
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd only; onecycle swings it by 0.05 to both sides
    max_norm: Bound = "none"  # clip the gradient's global L2 norm
    clip_value: Bound = "none"  # or each element
    # or each unit's norm, to this share of its weights' norm (adaptive gradient clipping); not the classifier's.
    agc: Bound = "none"

    # learning-rate schedule; time is counted in applied updates
    schedule: str = "plateau"  # onecycle, plateau, cosine, step, constant, or your own, as file.py:name
    warmup_epochs: float = Field(1.0, ge=0)  # linear, from lr / 25
    plateau_patience: Epochs = Field(3, ge=0)  # epochs without a lower val_loss before lr is multiplied
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    step_epochs: Epochs = Field(10, ge=1)  # schedule = "step": every so many epochs ...
    step_factor: float = Field(0.1, gt=0, lt=1)  # ... lr is multiplied by this

    # run
    epochs: Epochs = Field(25, ge=1)
    early_stopping: Epochs = Field(0, ge=0)  # epochs without a better val_acc; 0 trains to the end
    # Decay of an exponential moving average of the weights, which is then evaluated; 0 is off.
    ema: float = Field(0.0, ge=0, lt=1)
    precision: PrecisionChoice = "auto"  # auto: fp16 on a GPU, fp32 on a CPU
    # On a GPU, launch each step as one captured graph: up to 4 times as fast at small micro-batches.
    cuda_graphs: bool = True
    channels_last: bool = True
    seed: Seed = 0
    # CPU threads; part of the result on a CPU, because they order its sums.
    threads: int | None = Field(None, ge=1, le=1024)

    rules = (
        Rule(frozenset({"max_norm", "clip_value", "agc"}), _two_kinds_of_clipping),
        Rule(frozenset({"micro_batch", "accumulation", "effective_batch"}), _pair_misses_the_effective_batch),
        Rule(frozenset({"mixup", "cutmix", "micro_batch", "effective_batch"}), _mixing_lacks_neighbours),
        Rule(frozenset({"model", "pretrained"}), _no_published_weights),
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

    @field_validator("loss", "optimizer", "schedule")
    @classmethod
    def _name_is_known(cls, name: str, info: ValidationInfo) -> str:
        assert info.field_name is not None
        return registry.checked_name(info.field_name, name)

    @property
    def mixes(self) -> bool:
        """Whether neighbours are mixed, so that micro-batches must be even."""
        return bool(self.mixup or self.cutmix)

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

        The steps of "step" and the epochs at which images grow keep their share of the training. A warm-up keeps its
        length, and in a shorter training its share. Plateau's patience stays.
        """
        share = epochs / self.epochs
        changed: dict[str, Any] = {
            "epochs": epochs,
            "progressive_sizes": {round(epoch * share): size for epoch, size in self.progressive_sizes.items()},
            "warmup_epochs": self.warmup_epochs * min(share, 1.0),
        }
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

    Raises ConfigError with every fault at once.
    """
    return validated(RunConfig, *overridden(read_toml(path), overrides or {}, str(path)))


def save_config(config: RunConfig, path: Path) -> None:
    """Writes `config` as TOML, aside and renamed, with every setting spelled out."""
    write_text_atomically(path, config_text(config, path.name))


def config_text(config: RunConfig, name: str) -> str:
    """Returns `config` as the text of a TOML file of this name."""
    note = f"# Train this again:  python -m tune_cropshield train --config {name}\n\n"
    return note + tomli_w.dumps(without_none(config.model_dump()))
