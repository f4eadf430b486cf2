"""Settings worth trying first with an optimizer, where a space names none of its own and no earlier search is known.

Measured: on recorded trainings of 16 epochs at 64 and 96 px, 2,250 leaf photographs, some 200 random settings a network
(`results/replay_2026-11`). A Gaussian process through each table says what a setting reaches.
"""

from __future__ import annotations

from typing import Any

from tune_cropshield.config.domain import Value
from tune_cropshield.config.space import SearchSpace

Setting = dict[str, Any]

# AdamW's usual start; EfficientNet-B0, plateau: 0.81 of 0.84. Less than half is as good there (0.81), and three times
# as much is best for a small CNN with one-cycle (0.91 of 0.91, where 1e-3 reaches 0.87). Clipping by 1 to 2 costs
# nothing with either, and batches of 16 and 32 beat larger ones at so few updates.
ADAMW_FROM_SCRATCH: tuple[Setting, ...] = (
    {"lr": 1e-3, "max_norm": 1.0, "weight_decay": 1e-2, "effective_batch": 32, "label_smoothing": 0.1},
    {"lr": 3e-3, "max_norm": 1.0, "weight_decay": 1e-2, "effective_batch": 16, "label_smoothing": 0.1},
    {"lr": 4e-4, "max_norm": 1.0, "weight_decay": 1e-2, "effective_batch": 16, "label_smoothing": 0.1},
)

# What people fine-tune with most: 1e-3 and 1e-4 are the two commonest rates of public leaf-disease repositories, and
# trial 0 has the second. Not measured here.
ADAMW_FINE_TUNING: tuple[Setting, ...] = (
    {"lr": 3e-4, "max_norm": 1.0, "weight_decay": 1e-2, "effective_batch": 32, "label_smoothing": 0.1},
    {"lr": 1e-3, "max_norm": 1.0, "weight_decay": 1e-2, "effective_batch": 32, "label_smoothing": 0.1},
)

# ResNet-18, one-cycle, MixUp: 0.03 is best at every batch (0.90 of 0.90); 0.1, the ImageNet recipe's and trial 0's, is
# as good where clipping holds it (0.89), and 0.3 is not (0.69 to 0.81).
SGD_FROM_SCRATCH: tuple[Setting, ...] = (
    {"lr": 0.03, "max_norm": 2.0, "weight_decay": 5e-4, "effective_batch": 32, "label_smoothing": 0.0},
    {"lr": 0.1, "max_norm": 1.0, "weight_decay": 5e-4, "effective_batch": 32, "label_smoothing": 0.0},
)

# A tenth of the rates from scratch, as torchvision's and the linear-probing recipes have them. Not measured here.
SGD_FINE_TUNING: tuple[Setting, ...] = (
    {"lr": 3e-3, "max_norm": 1.0, "weight_decay": 1e-4, "effective_batch": 32, "label_smoothing": 0.0},
    {"lr": 0.03, "max_norm": 1.0, "weight_decay": 1e-4, "effective_batch": 32, "label_smoothing": 0.0},
)

FAMILIES = {
    ("adamw", False): ADAMW_FROM_SCRATCH,
    ("adamw", True): ADAMW_FINE_TUNING,
    ("sgd", False): SGD_FROM_SCRATCH,
    ("sgd", True): SGD_FINE_TUNING,
}


def family_starts(optimizer: str, fine_tuned: bool) -> tuple[Setting, ...]:
    """Returns settings to try first, best first; none for an optimizer of the user's own.

    fine_tuned: the network begins with trained weights, whether its backbone is frozen or not.
    """
    return FAMILIES.get((optimizer, fine_tuned), ())


def usual_starts(space: SearchSpace) -> tuple[dict[str, Value], ...]:
    """Returns the settings to try first with the optimizer of `space`, in terms of it; those whose lr it holds.

    Where several networks or sizes, or optimizers with ranges of their own, are searched, it is the best one of each
    combination, or, where these would be more than a third of the trials, of each network and optimizer.
    """
    families = space.families
    if len(families) == 1:
        return _usual_starts_of_one(space.narrowed(families[0]))
    found: dict[tuple[Any, ...], dict[str, Value]] = {}
    for number, family in enumerate(families):
        ours = space.narrowed(family)
        trial, few = ours.trial_config(), 3 * len(families) <= space.search.trials
        for start in _usual_starts_of_one(ours)[:1]:
            found.setdefault((number,) if few else (trial.model, trial.optimizer), {**family, **start})
    return tuple(found.values())


def _usual_starts_of_one(space: SearchSpace) -> tuple[dict[str, Value], ...]:
    trial, lr = space.trial_config(), space.space.get("lr")
    fine_tuned = bool(trial.pretrained) or trial.freeze_backbone
    optimizers = space.space["optimizer"].ends if "optimizer" in space.space else (trial.optimizer,)
    return tuple(
        space.fitted({**start, "optimizer": optimizer})
        for optimizer in optimizers
        for start in family_starts(str(optimizer), fine_tuned)
        if lr is not None and lr.holds(start["lr"])
    )
