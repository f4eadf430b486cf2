"""What a search finds out before its first trial: the device, the photographs, the batch sizes that fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tune_cropshield.config.branches import where
from tune_cropshield.config.reference import REFERENCE_CLASSES
from tune_cropshield.config.settings import RunConfig, TrialConfig
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.units import counted, describe_bytes, parse_budget
from tune_cropshield.device import find_device
from tune_cropshield.memory.choose.pairs import plan_of_families
from tune_cropshield.search.resources import Resources, divide
from tune_cropshield.shell import command

if TYPE_CHECKING:
    from tune_cropshield.data.dataset import LeafData
    from tune_cropshield.data.split import Split
    from tune_cropshield.data.split_file import SplitRow
    from tune_cropshield.device import Card
    from tune_cropshield.memory.choose.pairs import Plan
    from tune_cropshield.search.views.view import SearchView


@dataclass(frozen=True)
class Prepared:
    """What a search runs on: settings with everything decided that was left to us, photographs, pairs that fit.

    Attributes:
        space: its `data` says where the photographs come from.
        data: the photographs, decoded.
        plan: the pairs of micro-batch and accumulation that fit.
        resources: how the machine is divided among trials.
        card: the GPU as it was before any process of ours lay on it; None on a CPU.
        cache_dir: where measurements of memory are kept.
    """

    space: SearchSpace
    data: LeafData
    plan: Plan
    resources: Resources
    card: Card | None
    cache_dir: Path


def prepare(space: SearchSpace, cache_dir: Path, view: SearchView, kept: Sequence[SplitRow] | None = None) -> Prepared:
    """Returns what a search of `space` runs on, and says through `view` what was found.

    Args:
        space: where its `data` does not say where photographs come from, a synthetic data set is searched on.
        cache_dir: keeps decoded photographs, the synthetic data set and measurements of memory between runs.
        kept: the split of a search that is resumed.

    Raises:
        UserError: the device is not there, the photographs cannot be trained on, the network does not take their size,
            or nothing fits the GPU's memory.
    """
    from tune_cropshield.data.dataset import open_data
    from tune_cropshield.data.generated import generated_leaves
    from tune_cropshield.data.remarks import remarks, to_beat
    from tune_cropshield.search.flat import never_flat
    from tune_cropshield.search.start_points import reference_notes
    from tune_cropshield.search.trial_settings import most_expensive
    from tune_cropshield.training.model_checks import check_network, check_pretrained
    from tune_cropshield.training.own_metric import check_own_metric

    ours = [space.narrowed(family) for family in space.families]
    for one in ours:
        check_network(most_expensive(one)[0])
        check_losses(one)
    device, card = device_and_card(space)
    resources = divide(device, space.search.trials_per_gpu, space.search.trials)
    if not space.data.given:
        with view.steps("making a synthetic data set (no --data given)"):
            leaves = generated_leaves(cache_dir)
        view.note(f"no --data given: searching on a synthetic data set in {leaves}")
        space = space.model_copy(update={"data": space.data.model_copy(update={"dir": str(leaves)})})
    with view.steps("decoding photographs") as progress:
        data = open_data(space.data, space.image_sizes, cache_dir, progress, space.fits, kept, space.search.folds)
    for trial in pretrained_trials(space):
        check_pretrained(trial, len(data.classes))
    for one in ours:
        check_losses(one, len(data.classes))
    check_own_metric(space.search.metric, data.store.labels[data.split.val].tolist(), len(data.classes))
    trial = ours[0].trial_config()
    parts = [data.as_said(part.data) for part in space.search.parts_of(RunConfig(data=space.data, trial=trial))]
    for line in remarks(parts[0], space.search.folds):
        view.note(line)
    if (unused := _unused_stores(cache_dir)) is not None:
        view.note(unused)
    used = used_photographs([part.split for part in parts], space)
    count = resources.concurrent_trials
    view.note(
        f"{len(data.store)} photographs, {len(data.classes)} classes: {used}; {networks_in_words(space)} on {device}"
        + (f", {count} trial{'s' if count > 1 else ''} at once" if device == "cpu" else "")
    )
    view.note(to_beat(parts[0].split, data.classes, data.store.labels.tolist()))
    for note in reference_notes(space):
        view.note(note)
    if (too_short := never_flat(space.search)) is not None:
        view.note(too_short)
    plan = plan_for(space, resources, card, len(data.classes), view, cache_dir)
    return Prepared(space, data, plan, resources, card, cache_dir)


def check_losses(space: SearchSpace, num_classes: int | None = None) -> None:
    """Raises ConfigError when a loss that trials of `space`, of one family, may have cannot be trained with.

    See `check_loss`.
    """
    from tune_cropshield.search.trial_settings import most_expensive
    from tune_cropshield.training.loss_checks import check_loss

    trial = most_expensive(space)[0]
    losses = space.space["loss"].ends if "loss" in space.space else (trial.loss,)
    for loss in losses:
        check_loss(trial.model_copy(update={"loss": loss}), num_classes)


def pretrained_trials(space: SearchSpace) -> list[TrialConfig]:
    """Returns the settings of one trial for each network and weights that trials of `space` begin with."""
    found: dict[tuple[str, object], TrialConfig] = {}
    for family in space.families:
        ours = space.narrowed(family)
        for weights in ours.space["pretrained"].ends if "pretrained" in ours.space else (None,):
            trial = ours.trial_config({} if weights is None else {"pretrained": weights})
            found.setdefault((trial.model, trial.pretrained), trial)
    return list(found.values())


def networks_in_words(space: SearchSpace) -> str:
    """Returns which networks are trained at which sizes: "tiny_cnn at 48 or 64 px, resnet18 at 64 px"."""
    sizes: dict[str, list[int]] = {}
    for family in space.families:
        trial = space.narrowed(family).trial_config()
        sizes[trial.model] = sorted({*sizes.get(trial.model, []), trial.image_size})
    return ", ".join(f"{model} at {' or '.join(map(str, sides))} px" for model, sides in sizes.items())


def _unused_stores(cache_dir: Path) -> str | None:
    """Returns a sentence that offers old stores for removal; None where there are none."""
    from tune_cropshield.data.cached import old_stores

    count, size = old_stores(cache_dir)
    if not count:
        return None
    stores = f"{counted(count, 'store')} of decoded photographs ({describe_bytes(size)})"
    again = command("cache", "clear", "--older-than", "30d")
    return f"{stores} {'was' if count == 1 else 'were'} not used for a month. Remove:  {again}"


def used_photographs(splits: Sequence[Split], space: SearchSpace) -> str:
    """Returns in words what the photographs are used for. splits: one for each part of a trial."""
    search, split = space.search, splits[0]
    train, val, test = len(split.train), len(split.val), len(split.test)
    if search.folds > 1:
        return (
            f"each trial is trained on {search.folds} folds, each with about {train} photographs for training and "
            f"{val} for validation; {test} for the test"
        )
    seeds = f", each trial with {search.replicates} seeds" if search.replicates > 1 else ""
    return f"{train} for training, {val} for validation, {test} for the test{seeds}"


def device_and_card(space: SearchSpace) -> tuple[Literal["cpu", "cuda"], Card | None]:
    """Returns the device to search on, and the GPU as it is before any process of ours lies on it; None on a CPU."""
    device = find_device(space.search.device)
    if device == "cpu":
        return device, None
    from tune_cropshield.device import find_card

    return device, find_card()


def plan_for(
    space: SearchSpace,
    resources: Resources,
    card: Card | None,
    num_classes: int | None,
    view: SearchView,
    cache_dir: Path | None = None,
) -> Plan:
    """Returns the pairs that trials may take on this device: those of each family, where there are several.

    Args:
        card: the GPU, None on a CPU, where everything fits.
        num_classes: of the photographs. None where they are not known yet: a GPU's pairs are then only estimated.
        cache_dir: keeps what was measured; needed where `num_classes` is given.
    """
    plans = [
        (family, _plan_for_one(space.narrowed(family), resources, card, num_classes, view, cache_dir, where(family)))
        for family in space.families
    ]
    plan = plan_of_families(plans)
    if num_classes is not None:
        for note in plan.notes:
            view.note(note)
    return plan


def _plan_for_one(
    space: SearchSpace,
    resources: Resources,
    card: Card | None,
    num_classes: int | None,
    view: SearchView,
    cache_dir: Path | None,
    family: str,
) -> Plan:
    """Returns the pairs of the trials of one family, described by `family`; see `plan_for`."""
    from tune_cropshield.memory.choose.for_gpu import allowed_micro_batches, estimate_for, plan_for_gpu
    from tune_cropshield.memory.choose.pairs import plan_for_cpu
    from tune_cropshield.search.trial_settings import effective_batches, most_expensive

    trial, searched = most_expensive(space)
    batches, allowed = effective_batches(space), allowed_micro_batches(trial)
    if card is None:
        plan = plan_for_cpu(batches, allowed)
        if parse_budget(space.search.vram) is not None:
            no_effect = (
                f"--vram {space.search.vram} has no effect: it bounds a GPU's memory, and trials run on the CPU here"
            )
            plan = replace(plan, notes=(*plan.notes, no_effect))
        return plan
    from tune_cropshield.memory.choose.budget import resolve_budget
    from tune_cropshield.memory.choose.plans import plan_from_estimate

    budget = resolve_budget(space.search.vram, card)
    corner = ", ".join(f"{name} = {value}" for name, value in searched.items())
    planned_for = (
        [f"memory is planned for the setting that needs the most in this search: {corner}"] if searched else []
    )
    if num_classes is None:
        estimate = estimate_for(trial, REFERENCE_CLASSES)  # a dry run reads no photographs
        plan = plan_from_estimate(
            estimate, batches, budget.share_mib(resources.trials_per_gpu), budget.context_mib, allowed, trial.model
        )
        return replace(plan, notes=(*planned_for, *plan.notes))
    assert cache_dir is not None
    with view.steps(f"measuring which batch sizes fit the GPU{family and f' with {family}'}") as measuring:
        plan = plan_for_gpu(
            trial,
            num_classes,
            batches,
            budget,
            card,
            cache_dir,
            num_trials=resources.trials_per_gpu,
            trust_ample_memory=True,
            measuring=measuring,
        )
    return replace(plan, notes=(*planned_for, *plan.notes))
