"""What one training run needs, as frozen and validated settings; TOML in and out.

`[data]` says which photographs, `[trial]` how a network is trained on them. The same two tables stand in a trial's config.toml, in
best/config.toml and (as far as they are not searched) in a search-space file. Every default is written here once, with its reason.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tune_cropshield.errors import ConfigError, UserError
from tune_cropshield.files import write_text_atomically

Bound = Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["none"]


class Settings(BaseModel):
    """Base of every settings table: unknown keys are errors, values never change, numbers are finite, "1e-4" is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


SomeSettings = TypeVar("SomeSettings", bound=Settings)


class DataConfig(Settings):
    """Which photographs, and how they are split."""

    dir: str = ""  # one sub-folder per class; "" in a search-space file: given by --data, or drawn
    val_share: float = Field(0.1, gt=0, lt=1)
    test_share: float = Field(0.1, gt=0, lt=1)  # read once, for the winner
    split_seed: int = 0  # not the trial's seed: every trial and every confirming run shares one split
    max_bad_share: float = Field(0.05, ge=0, le=1)  # more unreadable photographs than this is an error, fewer are listed and left out

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Self:
        if self.val_share + self.test_share >= 1:
            raise ValueError(f"`val_share + test_share < 1` must hold, but got {self.val_share} + {self.test_share}")
        return self


class TrialConfig(Settings):
    """How one network is trained. Everything that changes the result is here, and nothing else."""

    # the network
    model: str = "efficientnet_b0"
    pretrained: bool | str = False  # true: torchvision's weights (downloaded); a string: a local state dict
    freeze_backbone: bool = False  # only the head learns
    dropout: float | None = Field(None, ge=0, lt=1)  # before the head; left out: the architecture's own
    image_size: int = Field(224, ge=16, le=1024)  # px, square
    progressive_sizes: dict[int, Annotated[int, Field(ge=16, le=1024)]] = {}  # {epoch: px} from that epoch on; image_size before the first

    # what it sees
    augment: Literal["none", "conservative", "moderate", "aggressive"] = "moderate"
    mixup: float = Field(0.0, ge=0)  # alpha of Beta(alpha, alpha); 0 is off
    cutmix: float = Field(0.0, ge=0)  # with mixup too, each pair of images takes one of them at even odds

    # one optimizer update: effective_batch = micro_batch x accumulation samples
    effective_batch: int = Field(32, ge=1)
    micro_batch: int | None = Field(None, ge=1)  # left out: the largest that fits (see the plan); an execution detail
    accumulation: int | None = Field(None, ge=1)
    eval_batch: int | None = Field(None, ge=1)  # left out: 2 x micro_batch; needs no gradients, so a larger one fits

    # loss
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"  # balanced: N / (K * count), for folders of very different sizes

    # optimizer
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(1e-4, gt=0)  # the guide's
    weight_decay: float = Field(1e-4, ge=0)  # the guide's; never on norms and biases
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd only
    max_norm: Bound = "none"  # clip the gradient's global L2 norm
    clip_value: Bound = "none"  # or each element
    agc: Bound = "none"  # or each unit's norm, to this share of its weights' norm (adaptive gradient clipping)

    # learning-rate schedule; time is counted in applied updates
    schedule: Literal["onecycle", "plateau", "cosine", "step", "constant"] = "plateau"
    warmup_epochs: float = Field(1.0, ge=0)  # linear, from lr / 25
    plateau_patience: int = Field(3, ge=0)  # epochs without a lower val_loss before lr is multiplied
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    step_epochs: int = Field(10, ge=1)  # schedule = "step": every so many epochs ...
    step_factor: float = Field(0.1, gt=0, lt=1)  # ... lr is multiplied by this

    # run
    epochs: int = Field(25, ge=1)
    early_stopping: int = Field(0, ge=0)  # epochs without a better val_acc; 0 trains to the end
    ema: float = Field(0.0, ge=0, lt=1)  # decay of an exponential moving average of the weights, which is then evaluated; 0 is off
    precision: Literal["auto", "fp16", "bf16", "fp32"] = "auto"  # auto: fp16 on a GPU, fp32 on a CPU
    channels_last: bool = True
    seed: int = Field(0, ge=0)
    threads: int | None = Field(None, ge=1)  # CPU threads; part of the result on a CPU, because they order its sums

    @field_validator("progressive_sizes", mode="before")
    @classmethod
    def _keys_are_epochs(cls, sizes: object) -> object:
        """TOML's keys are strings: {"5" = 128} means epoch 5."""
        return {int(key) if str(key).isdecimal() else key: value for key, value in sizes.items()} if isinstance(sizes, dict) else sizes

    @field_validator("model")
    @classmethod
    def _model_is_known(cls, name: str) -> str:
        from tune_cropshield.training.models import check_model_name  # torchvision takes a second to import: only when a model is named

        return check_model_name(name)

    @model_validator(mode="after")
    def _at_most_one_clipping(self) -> Self:
        given = [name for name in ("max_norm", "clip_value", "agc") if getattr(self, name) != "none"]
        if len(given) > 1:
            raise ValueError(f"at most one kind of clipping can be on, but got {' and '.join(given)}")
        return self

    @model_validator(mode="after")
    def _pair_makes_the_effective_batch(self) -> Self:
        micro, accumulation = self.micro_batch, self.accumulation
        if micro is not None and accumulation is not None and micro * accumulation != self.effective_batch:
            raise ValueError(f"`micro_batch * accumulation == effective_batch` must hold, but got {micro} * {accumulation} != {self.effective_batch}")
        for name, part in (("micro_batch", micro), ("accumulation", accumulation)):
            if part is not None and self.effective_batch % part:
                raise ValueError(f"`{name}` must divide effective_batch, but got {part} and {self.effective_batch}")
        return self

    @model_validator(mode="after")
    def _mixing_needs_neighbours(self) -> Self:
        if (self.mixup or self.cutmix) and ((self.micro_batch or 2) % 2 or self.effective_batch % 2):
            raise ValueError(
                "mixup and cutmix mix neighbours, so micro_batch and effective_batch must be even, "
                f"but got {self.micro_batch} and {self.effective_batch}"
            )
        return self

    @model_validator(mode="after")
    def _options_are_used(self) -> Self:
        """A setting that would be silently ignored is an error."""
        used_with = {
            "momentum": ("optimizer", ("sgd",)),
            "plateau_patience": ("schedule", ("plateau",)),
            "plateau_factor": ("schedule", ("plateau",)),
            "step_epochs": ("schedule", ("step",)),
            "step_factor": ("schedule", ("step",)),
        }
        for name, (switch, values) in used_with.items():
            default = type(self).model_fields[name].default
            if name in self.model_fields_set and getattr(self, name) != default and getattr(self, switch) not in values:
                raise ValueError(f"{name} is only used with {switch} = {' or '.join(values)}, but {switch} is {getattr(self, switch)}")
        return self

    @property
    def pair(self) -> tuple[int, int]:
        """(micro_batch, accumulation); with neither given, the whole effective batch at once."""
        micro = self.micro_batch or self.effective_batch // (self.accumulation or 1)
        return micro, self.effective_batch // micro

    def size_at(self, epoch: int) -> int:
        """Returns the side, in px, of the images that epoch `epoch` (from 0) trains on."""
        reached = [at for at in self.progressive_sizes if at <= epoch]
        return self.progressive_sizes[max(reached)] if reached else self.image_size

    @property
    def final_size(self) -> int:
        """The side, in px, of the images it is evaluated on: the one training ends with."""
        return self.size_at(self.epochs - 1)


class RunConfig(Settings):
    """A whole config.toml: enough to train a network again."""

    data: DataConfig = DataConfig()
    trial: TrialConfig = TrialConfig()


def load_config(path: Path) -> RunConfig:
    """Returns the run described by `path`; raises ConfigError with every fault of the file at once."""
    return validated(RunConfig, read_toml(path), str(path))


def save_config(config: RunConfig, path: Path) -> None:
    """Writes `config` as TOML, aside and renamed, with every setting spelled out."""
    note = "# Train this again:  python -m tune_cropshield train --config " + path.name + "\n\n"
    write_text_atomically(path, note + tomli_w.dumps(without_none(config.model_dump())))


def read_toml(path: Path) -> dict[str, Any]:
    """Returns the tables of a TOML file; raises ConfigError when it is missing, unreadable or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read ({error})"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: not valid TOML: {error}"]) from None


def validated(settings: type[SomeSettings], values: object, place: str) -> SomeSettings:
    """Returns `values` as `settings`; raises ConfigError with one line per fault, each naming `place` and the key."""
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(faults_of(error, settings, place)) from None


def faults_of(error: ValidationError, settings: type[BaseModel], place: str) -> list[str]:
    """Returns one sentence per fault: the place, the key, the rule and the value; unknown keys come with the known ones."""
    faults = []
    for fault in error.errors():
        # The branches of a union appear in `loc` under their type's name: only real keys and positions are of use to a reader.
        keys = [str(part) for part in fault["loc"] if isinstance(part, int) or str(part).replace("_", "").replace(".", "").isalnum()]
        where = f"{place}: {'.'.join(keys)}" if keys else place
        cause = fault.get("ctx", {}).get("error")
        if fault["type"] == "extra_forbidden":
            faults.append(f"{where}: unknown key; {known_keys(settings, fault['loc'])}")
        elif isinstance(cause, UserError) or fault["type"] == "value_error":
            faults.append(f"{where}: {cause}")
        else:
            faults.append(f"{where}: {fault['msg']}, but got {fault['input']!r}")
    return list(dict.fromkeys(faults))


def known_keys(settings: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """Returns the keys that could have stood where an unknown one was found, the closest first."""
    known: type[BaseModel] = settings
    for part in location[:-1]:
        field = known.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            break
        known = field.annotation
    names = list(known.model_fields)
    close = difflib.get_close_matches(str(location[-1]), names, n=1)
    return (f"did you mean {close[0]}? " if close else "") + f"known here: {', '.join(names)}"


def without_none(values: Any) -> Any:
    """Returns `values` without the keys whose value is None (TOML has no null; a key left out means the default), keys as strings."""
    if isinstance(values, dict):
        return {str(key): without_none(value) for key, value in values.items() if value is not None}
    return values
