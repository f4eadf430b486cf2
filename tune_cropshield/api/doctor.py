"""`doctor`: the machine, the photographs and published rules of thumb, measured here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tune_cropshield.api.arguments import AnyColumns, AnyPath, path_of, places_of
from tune_cropshield.api.space import new_space
from tune_cropshield.config.faults import command_line, validated
from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.settings import DataConfig, Fit, TrialConfig, load_config
from tune_cropshield.data.generated import generated_leaves
from tune_cropshield.data.sources import check_photographs
from tune_cropshield.device import find_device, num_cores
from tune_cropshield.errors import UserError
from tune_cropshield.outcome.trained import where_they_lie_now
from tune_cropshield.training.run_folder import CONFIG

if TYPE_CHECKING:  # PyTorch takes seconds to import: faulty arguments are told about before
    from tune_cropshield.doctor.examination import Examination


def examine(
    *,
    data: AnyPath | None = None,
    labels: AnyPath | None = None,
    columns: AnyColumns | None = None,
    train: AnyPath | None = None,
    val: AnyPath | None = None,
    test: AnyPath | None = None,
    config: AnyPath | None = None,
    space: AnyPath | None = None,
    model: str | None = None,
    tell: Callable[[str], object] = lambda what: None,
) -> Examination:
    """Returns what was found out about the machine, the photographs and published rules of thumb on this device.

    Args:
        data: One sub-folder of photographs per class; left out, that of `config` or `space`, or a small synthetic data
            set.
        labels, columns, train, val, test: Where photographs and labels come from, as in `tune_cropshield.search`.
        config: A config.toml whose [data] says how the photographs are read, as `train` does.
        space: A search space whose [data] does, as `search` does; one of the two at most.
        model: The network to measure with; left out, those that the rules speak of.
        tell: Called with what is measured next.

    Raises:
        ConfigError: With every fault of `config` or `space`.
        UserError: The model is not known, or the photographs cannot be trained on.
    """
    if model is not None:
        validated(TrialConfig, {"model": model}, command_line("trial", {"model": model}))
    given = {"data": data, "labels": labels, "columns": columns, "train": train, "val": val, "test": test}
    photographs, fits = chosen_photographs(given, config, space)
    drawn = not photographs.given
    if drawn:
        photographs = photographs.model_copy(update={"dir": str(generated_leaves(cache_dir()))})
    check_photographs(photographs)  # before heavy imports
    device = find_device("auto")
    import torch

    from tune_cropshield.doctor import examination

    gpu_or_cpu = torch.device("cuda", 0) if device == "cuda" else torch.device("cpu")
    return examination.examine(photographs, fits, drawn, model, gpu_or_cpu, num_cores(), cache_dir(), tell)


def chosen_photographs(
    given: Mapping[str, Any], config: AnyPath | None, space: AnyPath | None
) -> tuple[DataConfig, tuple[Fit, ...]]:
    """Returns which photographs and how they are split, and how they may become squares.

    given: the arguments that say where photographs come from. Raises as `examine` does.
    """
    if config is not None and space is not None:
        raise UserError("--config and --space both say how photographs are read: give one of them")
    if space is not None:
        searched = new_space({"space": space} | {name: value for name, value in given.items() if value is not None})
        return searched.data, searched.fits
    places = places_of(given)
    if config is None:
        return validated(DataConfig, places, command_line("data", places)), ("crop",)
    file = path_of(config, "--config")
    whole = load_config(file, {"data": places})
    found = (whole if places or file.name != CONFIG else where_they_lie_now(whole, file.parent)).data
    return found, (found.fit,)
