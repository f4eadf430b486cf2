"""A study's parameters -> a trial's settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tune_cropshield.config.branches import own_ranges
from tune_cropshield.config.domain import Value
from tune_cropshield.config.faults import Settings
from tune_cropshield.config.registry import is_own, source_digest
from tune_cropshield.config.settings import NOT_COMPARED, TrialConfig
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.memory.choose.pairs import SMALLEST_FOR_BATCH_NORM, Pair, Plan, parse_pair
from tune_cropshield.search.resources import Resources

PAIR = "pair"  # the parameter "16x2" that stands for effective_batch where every pair is searched
EFFECTIVE_BATCH = "effective_batch"
# The settings that every search's identity holds. Those that came later are in it only where they are not at their
# default: a space that uses none of them keeps the identity that earlier versions gave it.
# fmt: off
OF_EVERY_IDENTITY = frozenset({
    "model", "pretrained", "freeze_backbone", "dropout", "image_size", "progressive_sizes", "augment", "mixup",
    "cutmix", "effective_batch", "micro_batch", "accumulation", "eval_batch", "loss", "label_smoothing",
    "class_weights", "optimizer", "lr", "weight_decay", "momentum", "max_norm", "clip_value", "agc", "schedule",
    "warmup_epochs", "plateau_patience", "plateau_factor", "step_epochs", "step_factor", "epochs", "early_stopping",
    "ema", "precision", "cuda_graphs", "channels_last", "seed", "threads",
    "val_share", "test_share", "split_seed", "group", "max_bad_share", "fit", "class_depth", "merge",
})
# fmt: on
OWN_CODE = ("model", "loss", "optimizer", "schedule")  # settings that may name a user's own code


def distributions(space: SearchSpace, plan: Plan) -> dict[str, BaseDistribution]:
    """Returns what Optuna samples from in a space of one family: the space's domains.

    Of effective batches (or pairs) they hold only those that the plan says fit.
    """
    result = {name: domain.distribution() for name, domain in space.space.items() if name != EFFECTIVE_BATCH}
    if space.search.pairs == "all":
        result[PAIR] = CategoricalDistribution(
            [str(pair) for batch in plan.effective_batches for pair in plan.pairs[batch]]
        )
    elif EFFECTIVE_BATCH in space.space:
        result[EFFECTIVE_BATCH] = CategoricalDistribution(plan.effective_batches)
    return result


def comparable_settings(space: SearchSpace) -> dict[str, Any]:
    """Returns, as JSON has it, what two spaces must have in common for their trials to be compared.

    That is what is trained, searched, split and stopped, not for how long or on what. A user's own code counts with
    what stands in its file: `code` holds a digest for each of `own_names`. `parts` is there only where trials have
    several.
    """
    search, trial = space.search, space.trial_config()
    return {
        "trial": _identifying(trial),
        "code": [source_digest(name) for name in own_names(space).values()],
        "space": {name: domain.describe() for name, domain in space.space.items()},
        **({"when": ranges_of_their_own(space)} if space.when else {}),
        **({"searched_code": code} if (code := _searched_code(space)) else {}),
        "data": _identifying(space.data, but=NOT_COMPARED),
        **({"parts": [search.folds, search.replicates]} if search.num_parts > 1 else {}),
        "search": [search.epochs, search.grace_epochs, search.reduction_factor, search.pairs, search.pruning],
    }


def _identifying(settings: Settings, but: Collection[str] = ()) -> dict[str, Any]:
    """Returns, as JSON has it, what of `settings` tells searches apart; `but` names what does not."""
    everything, not_default = settings.model_dump(mode="json"), settings.model_dump(mode="json", exclude_defaults=True)
    return {
        name: value
        for name, value in everything.items()
        if name not in but and (name in OF_EVERY_IDENTITY or name in not_default)
    }


def ranges_of_their_own(space: SearchSpace) -> dict[str, str]:
    """Returns {table and parameter, like "when.optimizer.sgd.lr": its range} of every range of a choice's own."""
    return {".".join((*table[1:], name)): domain.describe() for table, name, domain in own_ranges(space.when)}


def _searched_code(space: SearchSpace) -> dict[str, str | None]:
    """Returns {name of a user's own code that is searched: a digest of what stands in its file}."""
    choices = [value for name in OWN_CODE for domain in space.domains().get(name, ()) for value in domain.ends]
    return {str(name): source_digest(str(name)) for name in choices if is_own(str(name))}


def own_names(space: SearchSpace) -> dict[str, str]:
    """Returns {setting: name} of the settings that may name a user's own code, in the order of `code` above."""
    trial = space.trial_config()
    return {
        "model": trial.model,
        "loss": trial.loss,
        "optimizer": trial.optimizer,
        "schedule": trial.schedule,
        "pruning": space.search.pruning,
        **({"metric": trial.metric} if is_own(trial.metric) else {}),  # others of earlier versions had no such place
    }


def settings_mark(space: SearchSpace) -> str:
    """Returns what tells apart spaces whose trials cannot be compared."""
    return hashlib.sha256(json.dumps(comparable_settings(space), sort_keys=True).encode()).hexdigest()[:16]


def suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> None:
    """Draws a parameter of a trial, as `study.ask` does; one that it has already stays."""
    match distribution:
        case CategoricalDistribution():
            trial.suggest_categorical(name, distribution.choices)
        case FloatDistribution(low=low, high=high, step=step, log=log):
            trial.suggest_float(name, low, high, step=step, log=log)
        case IntDistribution(low=low, high=high, step=step, log=log):
            trial.suggest_int(name, low, high, step=step, log=log)


def family_of(parameters: Mapping[str, Any], space: SearchSpace) -> dict[str, Value]:
    """Returns the first of the families of `space` that agrees with these parameters, else the first of all."""
    families = space.families
    agreeing = (one for one in families if all(parameters.get(name, value) == value for name, value in one.items()))
    return next(agreeing, families[0])


def pair_of(parameters: dict[str, Any], space: SearchSpace, plan: Plan) -> Pair:
    """Returns the micro-batch and accumulation of a trial with these parameters."""
    if PAIR in parameters:
        return parse_pair(parameters[PAIR])
    space, plan = space.narrowed(family_of(parameters, space)), plan.of(parameters)
    batch = parameters.get(EFFECTIVE_BATCH, space.trial_config().effective_batch)
    if EFFECTIVE_BATCH in parameters and not plan.pairs.get(batch):  # it fitted when the search was begun
        from tune_cropshield.memory.choose.for_gpu import allowed_micro_batches

        sizes = allowed_micro_batches(most_expensive(space)[0]).of(batch)
        micro_batch = min(size for size in sizes if size >= min(SMALLEST_FOR_BATCH_NORM, batch))
        return Pair(micro_batch, batch // micro_batch)
    return plan.best(batch)


def trial_config(space: SearchSpace, parameters: dict[str, Any], plan: Plan, resources: Resources) -> TrialConfig:
    """Returns the settings of the trial with these parameters, everything resolved."""
    pair = pair_of(parameters, space, plan)
    own = {name: value for name, value in parameters.items() if name != PAIR}
    return space.trial_config(
        {
            **own,
            EFFECTIVE_BATCH: pair.effective_batch,
            "micro_batch": pair.micro_batch,
            "accumulation": pair.accumulation,
            "threads": resources.threads,
        }
    )


def effective_batches(space: SearchSpace) -> tuple[int, ...]:
    """Returns the effective batches that trials of `space`, of one family, may have."""
    if EFFECTIVE_BATCH in space.space:
        ends = space.space[EFFECTIVE_BATCH].ends
        if space.space[EFFECTIVE_BATCH].choice is None:
            return tuple(range(int(ends[0]), int(ends[1]) + 1))
        return tuple(int(value) for value in ends)
    return (space.trial_config().effective_batch,)


# The searched settings that change what a step takes, and the order of their values: the highest takes the most. Of an
# own loss or optimizer it is not known what it takes: it comes before ours, and is measured.
MEMORY_COST: dict[str, Callable[[Any], int]] = {
    "ema": lambda decay: decay > 0,
    "optimizer": lambda name: 2 if is_own(name) else ("sgd", "adamw").index(name),
    "momentum": lambda momentum: momentum > 0,
    "loss": lambda name: 3 if is_own(name) else ("cross_entropy", "focal", "bi_tempered").index(name),
    "mixup": lambda alpha: alpha > 0,
    "cutmix": lambda alpha: alpha > 0,
    "dropout": lambda probability: probability > 0,
    "augment": lambda preset: ("none", "conservative", "moderate", "aggressive").index(preset),
    "max_norm": lambda bound: bound != "none",
    "clip_value": lambda bound: bound != "none",
    "agc": lambda bound: bound != "none",
    "label_smoothing": lambda share: share > 0,
    "class_weights": lambda weights: weights != "none",
    "cuda_graphs": lambda wanted: wanted,
}


# The searched settings that a network or an optimizer may not allow, and where in their range they ask the most.
FINE_TUNING: dict[str, Callable[[Any], Any]] = {"unfreeze_epochs": max, "backbone_lr_factor": min, "layer_decay": min}


def most_expensive(space: SearchSpace) -> tuple[TrialConfig, dict[str, Any]]:
    """Returns the settings that the memory plan of a space of one family is made for, and what is searched among them.

    Every searched setting that changes what a step takes stands at its most expensive value; the second result holds
    those ({name: value}) whose values differ in that.
    """
    domains = {name: space.space[name] for name in MEMORY_COST if name in space.space}
    values = {name: max(domain.ends, key=MEMORY_COST[name]) for name, domain in domains.items()}
    values |= {name: most(space.space[name].ends) for name, most in FINE_TUNING.items() if name in space.space}
    differ = {
        name: values[name]
        for name, domain in domains.items()
        if len({MEMORY_COST[name](end) for end in domain.ends}) > 1
    }
    return space.trial_config(values), differ
