"""What is asked of a user's own loss before anything is trained with it."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor

from tune_cropshield.config import registry
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.data.mixing import Targets
from tune_cropshield.errors import ConfigError
from tune_cropshield.training.losses import SampleLoss

SAMPLES = 8
ANY_CLASSES = 3
CONTRACT = "a loss is a class made from tune_cropshield.training.losses.SampleLoss"
MADE_WITH = "made with its class weights and the label smoothing alone"


def check_loss(trial: TrialConfig, num_classes: int | None = None) -> None:
    """Raises ConfigError when the loss of `trial`, a user's own, cannot be trained with as its settings say.

    It cannot be made, or is no SampleLoss; it gives no finite loss with a gradient for each sample; its losses
    do not add up over micro-batches; or it passes over class weights or label smoothing that the settings ask for.

    Args:
        num_classes: of the photographs; None where they are not known yet. It is then tried with some number, and what
            it raises says nothing: it may be made for the right one.
    """
    if not registry.is_own(trial.loss):
        return
    loss = _made(trial.loss)
    try:
        with registry.own_code("loss", trial.loss):
            _check(trial, loss, num_classes or ANY_CLASSES)
    except ConfigError as error:
        if num_classes is not None or error.__cause__ is None:
            raise


def _check(trial: TrialConfig, loss: SampleLoss, num_classes: int) -> None:
    losses_B = _losses(trial.loss, loss, num_classes)
    _check_sums(trial.loss, loss, num_classes, losses_B)
    if trial.class_weights != "none":
        loss.class_weights_K = torch.full((num_classes,), 2.0)
        if not torch.allclose(_losses(trial.loss, loss, num_classes), 2 * losses_B, rtol=1e-3):
            asked = f'class_weights = "{trial.class_weights}"'
            needed = "per_sample must multiply by self.class_weights_K[labels_B] (self.weighted does)"
            raise _fault(trial.loss, f"{needed}, as the settings have {asked}, but it does not")
        loss.class_weights_K = None
    if trial.label_smoothing > 0:
        loss.label_smoothing = trial.label_smoothing
        if torch.equal(_losses(trial.loss, loss, num_classes), losses_B):
            asked = f"label_smoothing = {trial.label_smoothing:g}"
            raise _fault(trial.loss, f"it passes over {asked}: let it use self.label_smoothing, or set that to 0")


def _check_sums(name: str, loss: SampleLoss, num_classes: int, losses_B: Tensor) -> None:
    """Raises ConfigError where accumulation would change what is trained: the losses must add up, however divided."""
    logits_BK, labels_B = _samples(num_classes)
    parts = (slice(0, 3), slice(3, SAMPLES))
    apart_B = torch.cat([loss.per_sample(logits_BK[part].clone(), labels_B[part]) for part in parts])
    if not torch.allclose(apart_B, losses_B, rtol=1e-3, atol=1e-5):
        raise _fault(name, "a sample's loss must not depend on the samples beside it, as micro-batches are of any size")
    if not torch.allclose(loss.sum(logits_BK.clone(), Targets(labels_B)), losses_B.sum(), rtol=1e-3):
        raise _fault(name, "sum must give the sum of per_sample over the micro-batch: leave it out, SampleLoss has one")


def _samples(num_classes: int) -> tuple[Tensor, Tensor]:
    """Returns drawn logits, fp32 (SAMPLES, num_classes), and labels of every class as far as they go."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SAMPLES, num_classes, generator=generator), torch.arange(SAMPLES) % num_classes


def _made(name: str) -> SampleLoss:
    found = registry.resolve("loss", name)
    if not callable(found) or (isinstance(found, type) and not issubclass(found, SampleLoss)):
        raise _fault(name, f"{CONTRACT}, but this is {found!r}")
    try:
        inspect.signature(found).bind(None, 0.0)
    except TypeError as error:
        raise _fault(name, f"{CONTRACT} and {MADE_WITH}, but it cannot be: {error}") from None
    except ValueError:  # of what is written in C, nothing is known
        pass
    try:
        with registry.own_code("loss", name):
            loss = found(None, 0.0)
    except ConfigError as error:
        raise ConfigError([f"{fault}; {CONTRACT} and {MADE_WITH}" for fault in error.faults]) from error
    if not isinstance(loss, SampleLoss):
        raise _fault(name, f"{CONTRACT}, but this gives a value of type {type(loss).__name__}")
    if type(loss).per_sample is SampleLoss.per_sample:
        raise _fault(name, f"{type(loss).__name__} defines no per_sample(self, logits_BK, labels_B)")
    return loss


def _losses(name: str, loss: SampleLoss, num_classes: int) -> Tensor:
    """Returns the losses of some samples, (SAMPLES,), with their faults told."""
    logits_BK, labels_B = _samples(num_classes)
    logits_BK.requires_grad_()
    called = f"per_sample of {SAMPLES} samples and {num_classes} classes"
    losses_B = loss.per_sample(logits_BK, labels_B)
    if not isinstance(losses_B, Tensor) or losses_B.shape != (SAMPLES,):
        shape = (
            f"shape {tuple(losses_B.shape)}"
            if isinstance(losses_B, Tensor)
            else f"a value of type {type(losses_B).__name__}"
        )
        raise _fault(name, f"{called} must give a loss for each, shape ({SAMPLES},), but gives {shape}")
    if not bool(torch.isfinite(losses_B).all()):
        raise _fault(name, f"{called} must give finite losses, but gives {losses_B.tolist()}")
    if not losses_B.requires_grad:
        raise _fault(name, f"{called} must have a gradient, but has none: without detach, argmax or no_grad it has")
    (gradient_BK,) = torch.autograd.grad(losses_B.sum(), logits_BK, allow_unused=True)
    if gradient_BK is None or not bool(torch.isfinite(gradient_BK).all()):
        found = "none with respect to the logits" if gradient_BK is None else "one with NaN or infinity"
        raise _fault(name, f"{called} must have a finite gradient, but has {found}")
    return losses_B.detach()


def _fault(name: str, told: str) -> ConfigError:
    return ConfigError([f"loss {name!r}: {told}"])
