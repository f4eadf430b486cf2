"""What is searched where no space was given: chosen for the photographs, the machine and the network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from tune_cropshield.config.families import (
    ON_CPU,
    ON_GPU,
    QUICK_EPOCHS,
    QUICK_TIME,
    QUICK_TRIALS,
    SIZE_BELOW,
    USUAL_SIZE,
    Family,
    default_network,
    family_of,
    has_fixed_size,
    has_weights,
)
from tune_cropshield.config.model_names import check_model_name
from tune_cropshield.config.places import find_space
from tune_cropshield.config.reference import has_reference
from tune_cropshield.config.space import SearchSettings, SearchSpace
from tune_cropshield.config.toml_files import read_toml
from tune_cropshield.config.units import counted, describe_seconds, parse_budget, parse_duration
from tune_cropshield.device import find_device, gpus_free_mib, num_cores
from tune_cropshield.errors import ConfigError

OPTIMIZERS_SHOWN = {"adamw": "AdamW", "sgd": "SGD"}


def follows_time(given: Mapping[str, Any]) -> bool:
    """Tells whether as many trials are searched as the time budget holds: there is one, and nothing says how many."""
    chosen = names_photographs(given) and "space" not in given
    return chosen and "time_budget" in given and "trials" not in given and not given.get("quick")


def choice_notes(given: Mapping[str, Any], space: SearchSpace) -> list[str]:
    """Returns sentences on what was chosen for the machine and the network, and why; none where nothing was.

    Args:
        given: the arguments of `search` that were given.
        space: what `new_space` has made of them.
    """
    search = space.search
    quick = (
        f"--quick: {counted(search.trials, 'trial')} of {counted(search.epochs, 'epoch')} at most, and it ends after "
        f"{describe_seconds(parse_duration(search.time_budget))} at the latest: to see how it goes, not to find the "
        "best setting"
        if given.get("quick") and search.time_budget
        else None
    )
    chosen = _what_was_chosen(given, space) if "space" not in given and not is_demo(given) else None
    unknown = space.baseline is None and not space.search.baseline and "baseline" not in given
    reference = no_reference(space) if unknown and not has_reference(space) else None
    return [note for note in (chosen, quick, reference) if note is not None]


def no_reference(space: SearchSpace) -> str:
    """Returns that there is nothing to measure the gain of a search against, and what would be."""
    told = []
    for family in space.families:
        trial = space.narrowed(family).trial_config()
        how = "fine-tuned" if trial.pretrained else "from scratch"
        told.append(f"{trial.model} {how} with {OPTIMIZERS_SHOWN.get(trial.optimizer, trial.optimizer)}")
    of_which = ", ".join(dict.fromkeys(told))
    return f"there is no reference setting for {of_which}: no gain is shown. [baseline] in a space sets your own"


def _what_was_chosen(given: Mapping[str, Any], space: SearchSpace) -> str:
    family, trial, device = _family(given), space.trial_config(), _device(given)
    length = f"at {trial.image_size} px for {counted(space.search.epochs, 'epoch')}"
    starts = "start" in read_toml(find_space(family.space))
    ranges = f"ranges and starting points of {family.space}" if starts else f"ranges of {family.space}"
    ranges += "" if starts else f", and starting points that are usual for {OPTIMIZERS_SHOWN[trial.optimizer]}"
    ranges += " (--space FILE takes others)"
    if not names_photographs(given):
        return f"no --data given: a short demonstration with {trial.model} from scratch {length}; {ranges}"
    how = f"fine-tuned from ImageNet weights with {OPTIMIZERS_SHOWN[trial.optimizer]}"
    if not trial.pretrained:
        how = f"from scratch with {OPTIMIZERS_SHOWN[trial.optimizer]}{_why_from_scratch(trial.model)}"
    if "model" in given:
        return f"{trial.model} {length}, {how}; {ranges}"
    others = "--model, --image-size and --epochs choose otherwise"
    if device == "cuda":
        small = trial.image_size == SIZE_BELOW and not given.get("quick") and "image_size" not in given
        memory = f" (its memory has no room for {USUAL_SIZE} px)" if small else ""
        return f"chosen for this GPU: {trial.model} {length}{memory}, {how}. {others}"
    return (
        f"no GPU here, so a small network was chosen, which {counted(num_cores(), 'core')} can train: {trial.model} "
        f"{length}, {how}. On a GPU it would be {ON_GPU}, fine-tuned at {USUAL_SIZE} px. {others}"
    )


def _why_from_scratch(model: str) -> str:
    """Returns why a network is not fine-tuned, in brackets; "" for one of which there are no published weights."""
    if not has_weights(model):
        return ""
    from tune_cropshield.training.published_weights import weights_file

    missing = f"cannot be had: no network, and no {weights_file(model)}"
    return f" (its ImageNet weights, with which it would reach more, {missing})"


def chosen_tables(given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Returns the tables of the space that is chosen where none is given, and their name in messages."""
    if is_demo(given) or not _is_known(given.get("model")):
        path = find_space("demo")
        return read_toml(path), str(path)
    family = _family(given)
    path = find_space(family.space)
    tables = read_toml(path)
    if family.trial.get("model", model := tables["trial"]["model"]) != model:
        tables.pop("start", None)  # what is tried first there was chosen for that network
    tables |= {"trial": {**tables["trial"], **family.trial}, "search": {**tables["search"], **family.search}}
    if not names_photographs(given):
        demo = read_toml(find_space("demo"))
        if not has_fixed_size(given["model"]):
            tables["trial"]["image_size"] = demo["trial"]["image_size"]
        tables["search"] = demo["search"]
    return tables, str(path)


def is_demo(given: Mapping[str, Any]) -> bool:
    """Tells whether a search without photographs and a space is the demonstration as it stands in demo.toml."""
    return "space" not in given and not names_photographs(given) and given.get("model") in (None, ON_CPU)


def names_photographs(given: Mapping[str, Any]) -> bool:
    """Tells whether the arguments of `search` say where photographs come from."""
    return any(name in given for name in ("data", "labels", "train"))


def _is_known(model: object) -> bool:
    """Tells whether there is such a network, or none was asked for; one that is not is told with the other faults."""
    try:
        return model is None or bool(isinstance(model, str) and check_model_name(model))
    except ConfigError:
        return False


def _device(given: Mapping[str, Any]) -> Literal["cpu", "cuda"]:
    wanted = given.get("device", "auto")
    return find_device(wanted if wanted in ("cpu", "cuda") else "auto")


def _family(given: Mapping[str, Any]) -> Family:
    """Returns the family that is searched where no space is given."""
    device = _device(given)
    model = given.get("model", default_network(device))
    weights = False
    there = (given.get(name) for name in ("data", "labels", "train"))
    if any(os.path.exists(str(place)) for place in there if place is not None) and has_weights(model):
        from tune_cropshield.training.published_weights import weights_can_be_had

        weights = weights_can_be_had(model)
    return family_of(
        model,
        device,
        weights,
        memory_mib=_memory_mib(given) if device == "cuda" else None,
        asked_for="model" in given,
        quick=bool(given.get("quick")),
    )


def _memory_mib(given: Mapping[str, Any]) -> float | None:
    """Returns the GPU memory that a search may take, in MiB: what was given, else what is free on the fullest GPU."""
    try:
        budget = parse_budget(str(given.get("vram", "auto")))
    except ConfigError:
        return None  # told with the other faults
    return budget.ours_mib if budget is not None else min(gpus_free_mib(), default=None)


def quick_search(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `quick` sets: few and short trials, and the minutes after which the search ends in any case."""
    search = tables.get("search", {})
    trials, epochs = (
        search.get(name, SearchSettings.model_fields[name].default) if isinstance(search, dict) else most
        for name, most in (("trials", QUICK_TRIALS), ("epochs", QUICK_EPOCHS))
    )
    return {
        "trials": min(trials, QUICK_TRIALS) if isinstance(trials, int) else QUICK_TRIALS,
        "epochs": min(epochs, QUICK_EPOCHS) if isinstance(epochs, int) else QUICK_EPOCHS,
        "time_budget": QUICK_TIME,
        "finish": False,
    }
