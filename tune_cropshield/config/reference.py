"""The reference setting of each model, and the command line of the train.py that it comes from.

The training guide of the CropShield project recommends these values. They are trial 0 of every search, trained to its
or as far as a short search can afford, so that what a search gains is measured against them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tune_cropshield.config.model_names import is_torchvisions
from tune_cropshield.config.settings import TrialConfig

if TYPE_CHECKING:
    from tune_cropshield.config.domain import Value
    from tune_cropshield.config.space import SearchSpace

REFERENCE = 0  # the number of the trial that has the reference setting
# What trial 0 is called where others are compared with it: it has the guide's setting, that of [baseline], or is one
# like the others.
REFERENCE_SETTING, BASELINE, FIRST_TRIAL = "the reference setting", "the baseline", "the first trial"

# "Hyperparameter Recommendations" of the training guide (RTX 4060 Laptop), and the clipping notes' set-up for ResNets.
CNN_FROM_SCRATCH: dict[str, Any] = {"lr": 1e-4, "weight_decay": 1e-4, "max_norm": "none", "effective_batch": 32}
EFFICIENTNET: dict[str, Any] = {"lr": 1e-4, "weight_decay": 1e-4, "max_norm": "none", "effective_batch": 32}  # 16 x 2
# SGD; lr is the peak.
RESNET_ONECYCLE: dict[str, Any] = {"lr": 0.1, "weight_decay": 1e-4, "max_norm": 1.0, "effective_batch": 64}

# CropShield's classes: what memory is planned for where there are no photographs to count them in.
REFERENCE_CLASSES = 22

MODEL_NAMES = {"cropshield_cnn": "custom"}  # ours -> train.py's


MOST_FOR_REFERENCE = 0.1  # of the epochs of a search: more would be missed by what it is after


def ends_reference(epochs: int, trained: int, of_search: int) -> bool:
    """Tells whether the reference setting, which was stopped, is trained to its end when all else is done.

    Args:
        epochs: that it has in all.
        trained: that it was trained.
        of_search: that all trials were trained.
    """
    return epochs - trained <= MOST_FOR_REFERENCE * of_search


def recommended(trial: TrialConfig) -> dict[str, Any]:
    """Returns the reference setting for the model and optimizer of `trial`: the values that the guide speaks of."""
    if trial.optimizer == "sgd":
        return RESNET_ONECYCLE
    return EFFICIENTNET if trial.model.startswith("efficientnet") else CNN_FROM_SCRATCH


def is_recommended(trial: TrialConfig) -> bool:
    """Tells whether the guide speaks of training the network of `trial` with its optimizer.

    It does of its own CNN and of EfficientNet-B0 with AdamW, and of ResNets from scratch with SGD. For others there is
    no reference setting; earlier versions took a usual one, and their searches keep it.
    """
    if trial.optimizer == "sgd":
        return is_torchvisions(trial.model) and trial.model.startswith("resnet") and not trial.pretrained
    return trial.optimizer == "adamw" and trial.model in ("cropshield_cnn", "efficientnet_b0")


def reference_family(space: SearchSpace) -> dict[str, Value]:
    """Returns the family of `space` that trial 0 is of: that of [baseline], or the first with a reference setting; the
    first of all where none has one.
    """
    if space.baseline is not None:
        return space.family_of_baseline()
    with_reference = (one for one in space.families if is_recommended(space.narrowed(one).trial_config()))
    return next(with_reference, space.families[0])


def has_reference(space: SearchSpace) -> bool:
    """Tells whether there is a reference setting for some network of `space`."""
    return is_recommended(space.narrowed(reference_family(space)).trial_config())


def train_py_command(trial: TrialConfig) -> str:
    """Returns the call of the guide's own train.py with the settings of `trial` that it has flags for.

    --clip_grad_norm and --weight_decay are flags the guide proposes to add. AMP off must be left out there: its `--amp
    False` is read as True.
    """
    micro_batch, accumulation = trial.pair
    words = [
        "python train.py",
        f"--model {MODEL_NAMES.get(trial.model, trial.model)}",
        f"--batch_size {micro_batch}",
        f"--accumulation_steps {accumulation}",
        f"--epochs {trial.epochs}",
        f"--lr {trial.lr!r}",
        f"--weight_decay {trial.weight_decay!r}",
        f"--scheduler {trial.schedule}",
        f"--warmup_epochs {int(trial.warmup_epochs) if trial.warmup_epochs.is_integer() else trial.warmup_epochs!r}",
    ]
    if trial.precision != "fp32":
        words.append("--amp True")
    if trial.max_norm != "none":
        words.append(f"--clip_grad_norm {trial.max_norm!r}")
    return " ".join(words)


def guide_formula(
    target_batch: int,
    vram_gb: float,
    model_size_gb: float = 0.5,
    input_mb_per_sample: float = 2.0,
    reserve_gb: float = 2.0,
) -> tuple[int, int] | None:
    """Returns (micro_batch, accumulation) as the guide's formula computes them.

    None stands for where the formula ends in a ZeroDivisionError.

    Three things are wrong with it. It counts the input image (as 2 MB; it has 0.6) and forgets the activations, which
    take 43 MiB an image for EfficientNet-B0: for its own example (64, 8 GB) it returns 2816 x 1, where the guide claims
    16 x 4. It never caps the micro-batch at the target batch. And at 2.5 GB of VRAM it divides by zero; below, it would
    return a negative batch (None here too).
    """
    usable_mb = (vram_gb - model_size_gb - reserve_gb) * 1024
    micro_batch = int(usable_mb / input_mb_per_sample)
    if micro_batch <= 0:
        return None
    return micro_batch, max(1, target_batch // micro_batch)
