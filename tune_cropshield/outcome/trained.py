"""A trained network, read back: its settings, its classes, its weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cropshield.config.own_files import kept
from tune_cropshield.config.settings import PLACES, RunConfig, TrialConfig, load_config
from tune_cropshield.config.space import SETTINGS
from tune_cropshield.config.timm_names import is_timms
from tune_cropshield.config.toml_files import read_toml
from tune_cropshield.errors import ConfigError, UserError
from tune_cropshield.files import printable
from tune_cropshield.search.final import FINAL
from tune_cropshield.training.run_folder import CLASSES, CONFIG, PREPARATION, WEIGHTS, is_part, network_folder

if TYPE_CHECKING:
    import torch  # seconds to import: a wrong folder is told about at once
    from torch import nn

BEST = "best"  # in a search's folder: its winner


def read_run(run_dir: Path) -> tuple[RunConfig, list[str], Path]:
    """Returns the configuration, the classes and the weights' path of a trained run.

    Raises UserError when one is missing or damaged.
    """
    missing = [name for name in (CONFIG, CLASSES, WEIGHTS) if not (run_dir / name).is_file()]
    if missing and (network := network_folder(run_dir)) != run_dir:
        raise UserError(f"{run_dir} was trained in parts, its network lies in one of them: give {network}")
    if missing:
        raise UserError(
            f"{run_dir} is no trained run: {', '.join(missing)} missing (give a folder like OUT/best or OUT/t000)"
        )
    return read_config(run_dir), _read_classes(run_dir / CLASSES), run_dir / WEIGHTS


def read_config(run_dir: Path) -> RunConfig:
    """Returns the settings of a trained run; of one in a search's folder, with the photographs where they lie now.

    Where a search was continued after they had moved stands in its search.toml; trials that had ended keep what was.

    Raises ConfigError when config.toml is missing or damaged.
    """
    return where_they_lie_now(load_config(run_dir / CONFIG), run_dir)


def where_they_lie_now(config: RunConfig, run_dir: Path) -> RunConfig:
    """Returns the settings that stand in `run_dir`'s config.toml with the photographs where its search has them now."""
    whole = run_dir.absolute()
    if is_part(whole):
        whole = whole.parent
    if not re.fullmatch(rf"{BEST}|{FINAL}(-\d+)?|t\d{{3,}}", whole.name):  # what else lies there has its own
        return config
    try:
        table = read_toml(whole.parent / SETTINGS)["data"]
        now = {name: table.get(name, "") for name in PLACES}
    except (ConfigError, KeyError, TypeError, AttributeError):
        return config
    if not (any(now.values()) and all(isinstance(place, str) for place in now.values())):
        return config
    return config.model_copy(update={"data": config.data.at(now)})


def earlier_preparation(run_dir: Path) -> list[str]:
    """Returns the line to say of a run whose network was judged on photographs prepared in another way than now.

    Earlier versions resized a photograph twice and wrote no preparation.json. No line for every other run.
    """
    if (run_dir / PREPARATION).is_file():
        return []
    return [
        f"{run_dir} was trained by an earlier version, which resized photographs twice; they are now resized once, so "
        "some predictions change: judge it anew (evaluate), or train it again"
    ]


def _read_classes(path: Path) -> list[str]:
    try:
        classes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{path} holds no list of two or more class names")
    return [printable(name) for name in classes]  # earlier versions took a folder's name as it was


def _check_normalisation(model: str, run_dir: Path) -> None:
    """Raises UserError where images were normalised in another way when the network was trained.

    timm says how a network's images are normalised, and may say something else in another version.
    """
    from tune_cropshield.data.preparation import normalisation_of

    path = run_dir / PREPARATION
    if not is_timms(model) or not path.is_file():
        return
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        then = tuple(written["mean"]), tuple(written["std"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error!r}") from None
    now = normalisation_of(model)
    if then != tuple(now):
        raise UserError(
            f"{path} says that {model} was trained with mean {then[0]} and standard deviation {then[1]}, but the timm "
            f"that is installed has {now.mean} and {now.std}: install the version of timm that it was trained with"
        )


def load_trained(trial: TrialConfig, num_classes: int, weights: Path, device: torch.device) -> nn.Module:
    """Returns the network of `trial` with the weights in `weights`, on `device`, ready to predict.

    A user's own network is built by the copy of its file that lies beside the weights: it was trained so.

    Raises UserError when the file is damaged or holds the weights of another network, and where timm normalises images
    for the network in another way by now.
    """
    from safetensors.torch import load_file

    from tune_cropshield.training.build import memory_format
    from tune_cropshield.training.models import build_model, load_weights

    _check_normalisation(trial.model, weights.parent)
    as_trained = kept("model", trial.model, weights.parent)
    model = build_model(as_trained, num_classes, dropout=trial.dropout, head=trial.head, image_size=trial.final_size)
    try:
        state = load_file(weights)
    except Exception as error:  # safetensors has an error of its own for each kind of damage
        raise UserError(f"{weights} is damaged: {error}") from error
    own = model.state_dict()
    differ = sorted(
        name
        for name in own.keys() | state.keys()
        if name not in own or name not in state or own[name].shape != state[name].shape
    )
    if differ:
        raise UserError(
            f"{weights} holds the weights of another network than {trial.model} with {num_classes} classes: "
            f"{len(differ)} tensors are missing, unknown or of another shape, first {differ[0]}"
        )
    load_weights(model, state)
    return model.to(device).to(memory_format=memory_format(trial.channels_last)).eval()
