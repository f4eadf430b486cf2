"""What can be wrong with a training loop, and the right form of each: the known mistakes of training scripts."""

from __future__ import annotations

import ast
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """wrong: what happens; right: what to write instead."""

    wrong: str
    right: str


@dataclass(frozen=True, order=True)
class Finding:
    """A rule that a line breaks. `detail` ends the sentence about what is wrong, where the script's own names help."""

    line: int
    rule: str
    detail: str = ""

    @property
    def wrong(self) -> str:
        return RULES[self.rule].wrong + self.detail

    @property
    def right(self) -> str:
        return RULES[self.rule].right


def finding_at(rule: str, node: ast.AST, detail: str = "") -> Finding:
    """Returns the finding that `node` breaks `rule`."""
    assert rule in RULES
    return Finding(int(getattr(node, "lineno", 1)), rule, detail)


RULES = {
    # gradient accumulation
    "last-window-dropped": Rule(
        "the epoch's last, shorter window is never stepped: its gradients are thrown away",
        "if (i + 1) % k == 0 or i + 1 == len(loader): ..., with the loss divided by the window's own number of samples",
    ),
    "loss-not-divided": Rule(
        "the gradients of a window add up, but this loss is not divided: the update is as many times too large "
        "as there are micro-batches",
        "loss = criterion(...) with reduction='sum', divided by the number of samples of the whole window",
    ),
    "ragged-window-mean": Rule(
        "the last window has fewer micro-batches, but its loss is divided as if it had all: its gradient is too small",
        "divide the summed loss by the samples of that window, not by a constant",
    ),
    "class-weights-mean": Rule(
        "with class weights, each micro-batch's mean has another denominator: their average is not the "
        "window's weighted mean (14 % off, measured)",
        "reduction='sum', divided by weight[labels].sum() over the whole window",
    ),
    "zero-grad-in-window": Rule(
        "the gradients are cleared before each micro-batch: only the last one of the window counts",
        "optimizer.zero_grad() once per window, after optimizer.step()",
    ),
    "clip-per-micro-batch": Rule(
        "partial sums are clipped, in each micro-batch: the window's gradient depends on how it was cut",
        "clip once per window, right before the step",
    ),
    "floored-accumulation": Rule(
        "// rounds down: a target of 64 at 48 images gives 1 step, an effective batch of 48",
        "choose a micro-batch that divides the target, then target // micro_batch is exact (assert target % "
        "micro_batch == 0)",
    ),
    "memory-formula": Rule(
        "memory per sample is counted as the input's size: activations take 20 to 100 times that (43 MiB for "
        "EfficientNet-B0 at 224 px, not 2)",
        "measure it: the command plan does, for a network and the memory of a GPU",
    ),
    "micro-batch-below-16": Rule(
        "fewer than 16 images at once make noisy batch norms, which accumulation does not mend",
        "micro-batches of 16 or more: the command plan says which fit",
    ),
    # mixed precision and clipping
    "clip-before-unscale": Rule(
        "the gradients are clipped while still multiplied by the loss scale: every update shrinks to next to nothing",
        "scaler.unscale_(optimizer), then clip, then scaler.step(optimizer)",
    ),
    "unscales-twice": Rule(
        "unscale_ is called again before scaler.update(): a RuntimeError, or gradients of two scales added up",
        "scaler.unscale_(optimizer) once per window, right before clipping",
    ),
    "clips-twice": Rule(
        "the same gradients are clipped twice: the second bound is the one that counts, and the first norm's "
        "log is wrong",
        "one clipping per update",
    ),
    "clip-without-gradients": Rule(
        "there are no fresh gradients here: nothing is clipped before the next step", "backward, then clip, then step"
    ),
    "clip-argument": Rule(
        "a bound for one kind of clipping is handed to the other: clip_grad_norm_ bounds the global norm, "
        "clip_grad_value_ each element",
        "clip_grad_norm_(parameters, max_norm) or clip_grad_value_(parameters, clip_value)",
    ),
    "loss-not-scaled": Rule(
        "this backward is not scaled, but scaler.step divides its gradients by the loss scale: in fp16 they "
        "underflow, and the update is lost",
        "scaler.scale(loss).backward()",
    ),
    "steps-with-scaled-gradients": Rule(
        "the optimizer steps on gradients that are still multiplied by the loss scale",
        "scaler.step(optimizer), then scaler.update()",
    ),
    "steps-twice": Rule(
        "a second step on the same gradients, with no backward in between",
        "one step per window: scaler.step(optimizer) calls optimizer.step() itself",
    ),
    "scaler-never-updated": Rule(
        "scaler.update() is missing: the loss scale is never lowered after an overflow, and a second unscale_ fails",
        "scaler.step(optimizer), then scaler.update()",
    ),
    "zero-grad-before-step": Rule(
        "the gradients are cleared between backward and step: the step sees none",
        "zero_grad after the step, or before the window's first backward",
    ),
    "gradients-never-cleared": Rule(
        "zero_grad is called nowhere: every update adds the gradients of all batches before it",
        "optimizer.zero_grad() after optimizer.step()",
    ),
    "deprecated-cuda-amp": Rule(
        "torch.cuda.amp is deprecated since PyTorch 2.4 and warns",
        "torch.autocast('cuda', dtype=torch.float16) and torch.amp.GradScaler('cuda')",
    ),
    "grad-may-be-none": Rule(
        "p.grad is None for frozen layers, and everywhere after zero_grad() and in validation: this raises instead "
        "of reporting",
        "... for p in model.parameters() if p.grad is not None, or the norm that clip_grad_norm_ returns",
    ),
    # schedules
    "plateau-without-metric": Rule(
        "ReduceLROnPlateau's step needs the metric: without it, a TypeError after the first epoch",
        "scheduler.step(val_loss) for plateau, scheduler.step() for the others",
    ),
    "scheduler-per-micro-batch": Rule(
        "the schedule moves with every micro-batch, not with every update: it runs k times too fast",
        "scheduler.step() inside the branch that steps the optimizer",
    ),
    "scheduler-on-skipped-update": Rule(
        "the schedule also moves when the scaler has skipped the update for an overflow",
        "scale = scaler.get_scale(); scaler.update(); if scaler.get_scale() >= scale: scheduler.step()",
    ),
    "onecycle-per-epoch": Rule(
        "OneCycleLR is made for one step per update, but stepped once per epoch: the cycle never gets past its "
        "first few steps",
        "scheduler.step() after each optimizer update, total_steps = ceil(batches / k) * epochs",
    ),
    "onecycle-total-steps": Rule(
        "steps_per_epoch counts micro-batches, but the schedule moves once per window: the cycle ends k times too "
        "late, that is never",
        "total_steps = math.ceil(len(loader) / k) * epochs",
    ),
    # what is measured and logged
    "item-in-loop": Rule(
        "the host waits for the GPU here in every micro-batch",
        "add up detached tensors (total += loss.detach() * n) and read them once per epoch",
    ),
    "mean-of-batch-means": Rule(
        "the mean of batch means is not the mean over samples: a last batch of 5 counts as much as one of 16",
        "add up loss * labels.size(0) and divide by the number of samples",
    ),
    "batch-means-over-samples": Rule(
        "the sum of batch means is divided by the number of samples: the result is too small by the batch size",
        "add up loss * labels.size(0) before dividing by the number of samples",
    ),
    "evaluates-with-gradients": Rule(
        "evaluation builds the graph of a training pass: memory for activations that nothing will use",
        "with torch.inference_mode(): ... around the evaluation",
    ),
    "evaluates-in-training-mode": Rule(
        "evaluation with dropout on, and batch norms that learn from the validation data",
        "model.eval() before, model.train() after",
    ),
    "trains-in-evaluation-mode": Rule(
        "evaluation switches the network to .eval(), and nothing switches it back: from then on it trains without "
        "dropout, and its batch norms no longer learn",
        "model.train() before each epoch's training loop",
    ),
    "trains-without-gradients": Rule(
        "the loss that is trained on is made without gradients here: its backward raises a RuntimeError",
        "contextlib.nullcontext() or torch.autocast(..., enabled=False) for what trains, no_grad for evaluation alone",
    ),
    "new-scaler-per-epoch": Rule(
        "a new GradScaler starts at a loss scale of 65536 again, and skips updates each time until it fits",
        "one torch.amp.GradScaler for the whole training, made beside the optimizer",
    ),
    # data and settings
    "black-image": Rule(
        "a picture that cannot be decoded becomes a blank one under a real label: the network learns that blank "
        "means that disease",
        "leave the file out of the list and say so, before training",
    ),
    "argparse-bool": Rule(
        "type=bool calls bool() on the text: '--flag False' is True, as is every text but an empty one",
        "action=argparse.BooleanOptionalAction (--amp, --no-amp)",
    ),
    # what comments say
    "scaler-does-not-clip": Rule(
        "mixed precision clips nothing: GradScaler multiplies the loss and skips updates with inf or NaN, it "
        "bounds no gradient",
        "scaler.unscale_(optimizer), then clip_grad_norm_(...)",
    ),
    "fp16-underflow": Rule(
        "1e-7 does not underflow in fp16, it becomes 1.19e-7; 1e-8 does", "the smallest fp16 number above 0 is 6e-8"
    ),
    "amp-on-cpu": Rule(
        "torch.autocast('cpu', dtype=torch.bfloat16) works too; whether it is faster depends on the processor",
        "the command doctor measures it",
    ),
    "batch-norm-in-autocast": Rule(
        "batch_norm is on no list of autocast: with fp16 in, fp16 comes out (its statistics are fp32 inside)",
        "losses, softmax and norms run in fp32 under autocast; batch norm follows its input",
    ),
}
