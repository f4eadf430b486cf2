"""Speed: mixed precision, channels_last, accumulation and clipping against their plain counterparts, on this device."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from functools import partial

import torch

from tune_cropshield.doctor.claims import (
    REFERENCE_IMAGE_SIZE,
    REFERENCE_TRAINING_IMAGES,
    Figure,
    Figures,
    Key,
    reference_pair,
)
from tune_cropshield.doctor.plain_step import PlainStep, StepSettings
from tune_cropshield.memory.measure.step_driver import seconds_of, steps_that_fit, take_turns

# A CPU takes seconds for what a GPU does in milliseconds: smaller images and batches there.
CPU_IMAGE_SIZE, CPU_BATCH, CPU_AMP_BATCH = 64, 8, 2
CLIPS_TIMED = 9
LEFT_OUT = "the step does not fit this device's memory"


@dataclass(frozen=True)
class Speeds:
    """How fast one network trains here."""

    figures: Figures  # for the verdicts
    images_per_s: dict[str, float]  # of each variant of the step, by name
    how: str  # in what they were measured


def measure_speeds(model: str, device: torch.device, seconds: float) -> Speeds:
    """Returns how fast `model` trains here in each variant. Takes about `seconds`, more where a single step does."""
    return _on_a_gpu(model, device, seconds) if device.type == "cuda" else _on_a_cpu(model, device, seconds)


def _on_a_gpu(model: str, device: torch.device, seconds: float) -> Speeds:
    micro, accumulation = reference_pair(model)
    plain = StepSettings(
        model, REFERENCE_IMAGE_SIZE, "fp32", channels_last=False, micro_batch=micro, accumulation=accumulation
    )
    amp = replace(plain, precision="fp16")
    fast = replace(amp, channels_last=True)
    halves = replace(fast, micro_batch=16, accumulation=2)
    settings = {
        "fp32": plain,
        "amp": amp,
        "amp channels_last": fast,
        "amp channels_last clipped": replace(fast, max_norm=1.0),
        "32 x 1": replace(halves, micro_batch=32, accumulation=1),
        "16 x 2": halves,
    }
    steps = _steps(settings, device)
    times = take_turns(steps, device, seconds, min_rounds=10)
    of = f"{micro} x {accumulation} at {REFERENCE_IMAGE_SIZE} px"
    figures = {
        Key("amp_speed", model): _figure(
            ratio(times, "fp32", "amp"), f"fp16 against fp32 (TF32 in its convolutions, PyTorch's default), {of}"
        ),
        Key("channels_last_speed", model): _figure(ratio(times, "amp", "amp channels_last"), f"fp16, {of}"),
        Key("accumulation_speed", model): _figure(
            ratio(times, "32 x 1", "16 x 2"), "images/s of 16 x 2 against 32 x 1, fp16 channels_last"
        ),
        Key("clip_cost", model): _clip_cost(times, of),
        Key("amp_on_cpu", model): Figure(None, note="measured where there is no GPU"),
    }
    if "amp" in times:
        rate = steps["amp"].images_per_window / statistics.median(times["amp"])
        minutes = REFERENCE_TRAINING_IMAGES / rate / 60
        note = (
            f"on this GPU, for {REFERENCE_TRAINING_IMAGES:,} images that are already in memory: no loader can be faster"
        )
        figures[Key("epoch_minutes", model, (micro, accumulation))] = Figure(minutes, note=note)
    return Speeds(figures, _rates(steps, times), f"{of}, random images on the GPU, fused AdamW")


def _clip_cost(times: dict[str, list[float]], of: str) -> Figure:
    """Returns the median of what clipping adds to a step, turn by turn."""
    plain, clipped = times.get("amp channels_last"), times.get("amp channels_last clipped")
    if not plain or not clipped or len(plain) != len(clipped):
        return Figure(None, note=LEFT_OUT)
    added_ms = [1000 * (after - before) for before, after in zip(plain, clipped, strict=True)]
    low, middle, high = statistics.quantiles(added_ms, n=4) if len(added_ms) > 1 else added_ms * 3
    step_ms = 1000 * statistics.median(plain)
    note = (
        f"unscale_ and clipping add {middle:.2f} ms (quartiles {low:.2f} to {high:.2f}) to a step of {step_ms:.1f} "
        f"ms, {of}, fp16 channels_last"
    )
    return Figure(100 * middle / step_ms, note=note)


def _on_a_cpu(model: str, device: torch.device, seconds: float) -> Speeds:
    plain = StepSettings(model, CPU_IMAGE_SIZE, "fp32", channels_last=False, micro_batch=CPU_BATCH)
    fast = replace(plain, channels_last=True)
    few = replace(fast, micro_batch=CPU_AMP_BATCH)
    steps = _steps(
        {
            "fp32": plain,
            "fp32 channels_last": fast,
            "fp32 channels_last, in halves": replace(fast, micro_batch=CPU_BATCH // 2, accumulation=2),
        },
        device,
    )
    times = take_turns(steps, device, 0.6 * seconds)
    clip_ms = _clip_alone_ms(steps["fp32 channels_last"], device)
    step_ms = 1000 * statistics.median(times["fp32 channels_last"])
    small = _steps({"fp32 few": few, "bf16 few": replace(few, precision="bf16")}, device)
    small_times = take_turns(small, device, 0.4 * seconds)
    speed = ratio(small_times, "fp32 few", "bf16 few")
    of = f"{CPU_BATCH} images of {CPU_IMAGE_SIZE} px"
    amp_note = f"bf16 against fp32 on this CPU, {CPU_AMP_BATCH} images of {CPU_IMAGE_SIZE} px"
    figures = {
        Key("amp_speed", model): Figure(None, note="the rule is about GPUs; amp-on-cpu shows what bf16 gives here"),
        Key("amp_on_cpu", model): Figure(speed, note=amp_note),
        Key("channels_last_speed", model): Figure(ratio(times, "fp32", "fp32 channels_last"), note=f"fp32, {of}"),
        Key("accumulation_speed", model): Figure(
            ratio(times, "fp32 channels_last", "fp32 channels_last, in halves"),
            note=f"images/s of {CPU_BATCH // 2} x 2 against {CPU_BATCH} x 1, fp32, {CPU_IMAGE_SIZE} px",
        ),
        Key("clip_cost", model): Figure(
            100 * clip_ms / step_ms, note=f"{clip_ms:.2f} ms beside a step of {step_ms:.0f} ms, {of}, fp32"
        ),
        Key("epoch_minutes", model, reference_pair(model)): Figure(None, note="the rule is about GPUs"),
    }
    rates = {**_rates(steps, times), **_rates(small, small_times)}
    return Speeds(figures, rates, f"{of} ({CPU_AMP_BATCH} where it says few), random images, fused AdamW")


def _clip_alone_ms(step: PlainStep, device: torch.device) -> float:
    """Returns the median time of clipping alone.

    A CPU does one thing after the other, so a step gets longer by just that.
    """
    step.backward()
    step.clip()
    clip_ms = 1000 * statistics.median(seconds_of(step.clip, device) for _ in range(CLIPS_TIMED))
    step.optimizer.zero_grad(set_to_none=True)
    return clip_ms


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float | None:
    """Returns how many times as long `slow` takes as `fast`, by their medians, of which images per second are told.

    None where one of them was not timed.
    """
    if not (times.get(slow) and times.get(fast)):
        return None
    return statistics.median(times[slow]) / statistics.median(times[fast])


def _steps(settings: dict[str, StepSettings], device: torch.device) -> dict[str, PlainStep]:
    return steps_that_fit({name: partial(PlainStep, wanted, device) for name, wanted in settings.items()}, device)


def _rates(steps: dict[str, PlainStep], times: dict[str, list[float]]) -> dict[str, float]:
    return {name: steps[name].images_per_window / statistics.median(seconds) for name, seconds in times.items()}


def _figure(value: float | None, note: str) -> Figure:
    return Figure(value, note=note if value is not None else LEFT_OUT)
