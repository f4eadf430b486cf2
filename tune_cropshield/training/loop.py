"""One trial: data, model, loop, records. A complete program in itself; a search is one more caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tune_cropshield.config.settings import RunConfig, TrialConfig, save_config
from tune_cropshield.config.units import MIB
from tune_cropshield.data.dataset import DeviceData
from tune_cropshield.data.mixing import Mixing
from tune_cropshield.data.windows import EvaluationBatch, Window, WindowSettings, evaluation_batches, training_windows
from tune_cropshield.errors import DivergedError
from tune_cropshield.files import remove_leftovers, told_when_full
from tune_cropshield.memory.guard import cap_allocator
from tune_cropshield.training.clock import CHECKPOINT, REPORT, STEP, TrialClock
from tune_cropshield.training.gpu_errors import gpu_errors_named
from tune_cropshield.training.host_copies import copies_on_host
from tune_cropshield.training.metrics import EpochMetrics, Evaluation
from tune_cropshield.training.precision import DTYPES, INITIAL_SCALE
from tune_cropshield.training.retries.out_of_memory import Ladder, LadderStep
from tune_cropshield.training.retries.spilling import EpochMemory, SpillGuard, driver_may_spill
from tune_cropshield.training.retries.wider_precision import PrecisionChange, Training
from tune_cropshield.training.run_folder import CONFIG, RunFolder, ScalarEvents
from tune_cropshield.training.trainer import TrainedEpoch, Trainer

CHECKPOINT_EVERY_S = (
    10.0  # a kill costs at most this much training and the epoch under way, an orderly end only the latter
)


class TrialEnded(Exception):
    """Thrown into `trial_epochs`, it ends the trial for good: nobody will go on with it, so that no checkpoint is
    saved.
    """


@dataclass(frozen=True)
class TrialReport:
    """What is known after an epoch."""

    metrics: EpochMetrics
    best_epoch: int
    best_val_acc: float  # the best so far: what pruning, the sampler and the kept weights all go by
    finished: bool  # the last epoch, or early stopping
    ladder_steps: tuple[
        LadderStep, ...
    ] = ()  # how often memory ran out, and what was made smaller; empty in all but accidents
    notes: tuple[str, ...] = ()  # what else a person should know: sentences, each in every report after it


def run_trial(
    config: RunConfig,
    data: DeviceData,
    folder: Path,
    report: Callable[[TrialReport], object] = print,
    *,
    resume: bool = False,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    memory_mib: float | None = None,
) -> TrialReport:
    """Trains one network to its end and returns the last report. Arguments and errors are those of `trial_epochs`."""
    last = None
    with closing(
        trial_epochs(config, data, folder, resume=resume, checkpoint_every_s=checkpoint_every_s, memory_mib=memory_mib)
    ) as epochs:
        for last in epochs:
            report(last)
    assert last is not None
    return last


def trial_epochs(
    config: RunConfig,
    data: DeviceData,
    folder: Path,
    *,
    resume: bool = False,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    memory_mib: float | None = None,
    loss_scale: float = INITIAL_SCALE,
) -> Generator[TrialReport]:
    """Trains one network, yielding a report after each epoch, and writes its files (see `records`) into `folder`.

    Before an epoch is reported, its metrics are written, and the weights where they are the best so far.
    resume: go on from the folder's last checkpoint, with the same numbers as if it had never stopped; without a
    checkpoint, from the start. The checkpoint's epoch is reported again first: whoever listens may have been killed
    before hearing of it. A damaged checkpoint is passed over for the one before, and events.jsonl says so. Closing the
    iterator early saves a checkpoint, so that only an epoch under way is lost; throwing TrialEnded into it saves none.
    memory_mib: what this process's allocator may reserve on a GPU, the data's resident stores included; None: all there
    is. When it runs out all the same, training goes on at half the micro-batch; where fp16 does not do, it goes on in a
    wider precision: events.jsonl says so.
    loss_scale: fp16's first scale, where an earlier trial of this model has found a good one. Raises DivergedError when
    training stops being finite, OutOfMemory when smaller micro-batches do not help, DeadContextError when the GPU takes
    no more work from this process, DiskFull, and RunFailure for a checkpoint of another version.
    """
    with told_when_full(folder):
        yield from _epochs(config, data, folder, resume, checkpoint_every_s, memory_mib, loss_scale)


def _epochs(
    config: RunConfig,
    data: DeviceData,
    folder: Path,
    resume: bool,
    checkpoint_every_s: float,
    memory_mib: float | None,
    loss_scale: float,
) -> Generator[TrialReport]:
    trial = config.trial
    folder.mkdir(parents=True, exist_ok=True)
    clock = TrialClock(folder)
    remove_leftovers(folder)
    run = RunFolder(folder)
    if trial.threads is not None:
        torch.set_num_threads(trial.threads)
    save_config(config, folder / CONFIG)
    cap_allocator(memory_mib, data.device)
    notes: list[str] = []

    def precision_changed(change: PrecisionChange) -> None:
        run.add_event({"event": "precision", **asdict(change)})
        notes.append(change.told)

    def new_ladder(trainer: Trainer) -> Ladder:
        return Ladder(
            trainer,
            trial.effective_batch,
            trial.pair[0],
            evaluation_batch(trial),
            even=bool(trial.mixup or trial.cutmix),
            note=lambda step: run.add_event({"event": "out of memory", **asdict(step)}),
        )

    with gpu_errors_named():
        training = Training(trial, data, new_ladder, precision_changed, loss_scale)
    progress = Progress()
    if resume:
        state, damage = run.checkpoint()
        if state is not None:
            progress.load_state(state["progress"])
            training.load_state(state["training"], progress.epochs_done)
        if damage:
            run.add_event(
                {"event": "damaged checkpoint", "reasons": damage, "goes_on_after_epoch": progress.epochs_done}
            )
            notes.append(f"{'; '.join(damage)}: it goes on after epoch {progress.epochs_done}")
    run.keep_metrics_until(progress.epochs_done)
    if progress.metrics is not None:
        run.save_best(progress.best_weights, progress.best_predictions, progress.best_metrics, data.data.classes)
        yield progress.report(trial, training.ladder, notes)
        if progress.finished(trial):
            return
    spill_guard = SpillGuard(memory_mib) if data.device.type == "cuda" and driver_may_spill() else None
    with _ending(clock), closing(ScalarEvents(folder, progress.epochs_done + 1)) as events:
        last_saved, saved_epoch = time.perf_counter(), progress.epochs_done
        clock.write("setup")
        while not progress.finished(trial):
            clock.enter(STEP)
            with gpu_errors_named():
                metrics, evaluation = _run_epoch_in_some_precision(trial, training, data, progress.epochs_done)
                if spill_guard is not None:
                    _leave_system_memory(
                        spill_guard, training.ladder, metrics, trial.size_at(progress.epochs_done), data
                    )
                training.epoch_was_good(metrics.epoch)
                if (eager := training.ladder.trainer.step.runner.reason) is not None:
                    why = f"steps run kernel by kernel, not as CUDA graphs: {eager}"
                    if why not in notes:
                        run.add_event({"event": "no CUDA graphs", "reason": why})
                        notes.append(why)
                is_best = progress.add(metrics, evaluation, training.ladder.trainer)
            clock.epoch_done(len(data.indices("train")) / metrics.images_per_s, metrics.data_wait_s)
            run.add_metrics(metrics)
            events.add(metrics, progress.best_metrics)
            clock.enter(CHECKPOINT)
            if is_best:
                run.save_best(
                    progress.best_weights, progress.best_predictions, progress.best_metrics, data.data.classes
                )
            if progress.finished(trial) or time.perf_counter() - last_saved >= checkpoint_every_s:
                run.save_checkpoint({"training": training.state(), "progress": progress.state()})
                last_saved, saved_epoch = time.perf_counter(), progress.epochs_done
            clock.enter(REPORT)
            clock.write("epoch")
            try:
                yield progress.report(trial, training.ladder, notes)
            except GeneratorExit:
                clock.enter(CHECKPOINT)
                if saved_epoch < progress.epochs_done:
                    run.save_checkpoint({"training": training.state(), "progress": progress.state()})
                raise


@contextmanager
def _ending(clock: TrialClock) -> Iterator[None]:
    """Writes the clock's last line when the block ends, however it does."""
    try:
        yield
    finally:
        clock.enter(CHECKPOINT)
        clock.write("end")


def _run_epoch_in_some_precision(
    trial: TrialConfig, training: Training, data: DeviceData, epoch: int
) -> tuple[EpochMetrics, Evaluation]:
    """Does `_run_epoch`, and once more in a wider precision where fp16 fails."""
    try:
        return _run_epoch(trial, training.ladder, data, epoch)
    except DivergedError as error:
        if not training.can_widen:
            raise
        failure = error.what  # not the error itself: it holds on to the old trainer's memory
    training.widen(failure)
    return _run_epoch(trial, training.ladder, data, epoch)


def _run_epoch(trial: TrialConfig, ladder: Ladder, data: DeviceData, epoch: int) -> tuple[EpochMetrics, Evaluation]:
    """Trains epoch `epoch` (from 0), evaluates, and returns the figures."""
    started = time.perf_counter()
    if data.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(data.device)
    trainer, size = ladder.trainer, trial.size_at(epoch)
    feed = data.feed(size)
    waited_before = feed.wait_s
    dtype = DTYPES[trainer.step.precision]
    settings = WindowSettings(
        effective_batch=trial.effective_batch,
        micro_batch=ladder.micro_batch,
        preset=trial.augment,
        mixing=Mixing(trial.mixup, trial.cutmix) if trial.mixup or trial.cutmix else None,
        seed=trial.seed,
        dtype=dtype,
    )

    def windows_from(micro_batch: int, first_window: int) -> Generator[Window]:
        cut = replace(settings, micro_batch=micro_batch)
        return training_windows(feed, data.labels_N, data.indices("train"), cut, epoch, size, first_window)

    trained = ladder.train_epoch(windows_from, epoch + 1)
    data_wait_s = feed.wait_s - waited_before
    evaluation = ladder.validate(lambda batch: validation_batches(trial, data, "val", dtype, batch), epoch + 1)
    return _epoch_metrics(
        trainer, trained, evaluation, epoch + 1, data_wait_s, time.perf_counter() - started, data.device
    ), evaluation


def evaluation_batch(trial: TrialConfig) -> int:
    """Returns how many images `trial` evaluates at once: as many as it trains on.

    Without gradients more would fit, but the allocator then holds blocks of both sizes: evaluating twice as many took a
    tenth of an 8 GB budget from training (measured on an H200).
    """
    return trial.eval_batch or trial.pair[0]


def validation_batches(
    trial: TrialConfig, data: DeviceData, split: str, dtype: torch.dtype, batch: int | None = None
) -> Iterator[EvaluationBatch]:
    """Yields the batches on which `trial` is judged, of "val" or "test", at the size that training ends with. batch:
    None for the trial's own.
    """
    size = trial.final_size
    return evaluation_batches(
        data.feed(size), data.labels_N, data.indices(split), batch or evaluation_batch(trial), size, dtype
    )


def _leave_system_memory(
    guard: SpillGuard, ladder: Ladder, metrics: EpochMetrics, image_size: int, data: DeviceData
) -> None:
    """Halves the micro-batch after an epoch that spilled, unless it is as small as it may be."""
    epoch = EpochMemory(
        seconds_per_image=1 / metrics.images_per_s - metrics.data_wait_s / len(data.indices("train")),
        reserved_mib=metrics.peak_vram_mib,
        free_mib=torch.cuda.mem_get_info(data.device)[0] / MIB,
    )
    if guard.spilled((ladder.micro_batch, image_size), epoch) and ladder.can_lower:
        ladder.lower_micro_batch(
            metrics.epoch,
            "training slowed down by half with the memory nearly full: the driver seems to use system memory",
        )


def _epoch_metrics(
    trainer: Trainer,
    trained: TrainedEpoch,
    evaluation: Evaluation,
    epoch: int,
    data_wait_s: float,
    epoch_s: float,
    device: torch.device,
) -> EpochMetrics:
    updates = trained.updates
    return EpochMetrics(
        epoch=epoch,
        updates=int(trainer.step.updates),
        train_loss=updates.train_loss,
        val_loss=evaluation.loss,
        val_acc=evaluation.accuracy,
        val_macro_f1=evaluation.macro_f1,
        lr=updates.last_lr,
        grad_norm_p50=updates.grad_norm_p50,
        grad_norm_p95=updates.grad_norm_p95,
        clip_rate=updates.clip_rate,
        skipped_steps=updates.skipped_steps,
        loss_scale=trainer.step.scaler.get_scale(),
        images_per_s=trained.images / trained.seconds,
        data_wait_s=data_wait_s,
        epoch_s=epoch_s,
        peak_vram_mib=torch.cuda.max_memory_reserved(device) / 2**20 if device.type == "cuda" else 0.0,
    )


class Progress:
    """How far a run has come, and its best epoch: the first with the highest val_acc."""

    def __init__(self) -> None:
        self.metrics: EpochMetrics | None = None  # the last epoch's
        self.best_metrics: dict[str, Any] = {}
        self.best_weights: dict[str, Tensor] = {}
        self.best_predictions: dict[str, Tensor] = {}

    @property
    def epochs_done(self) -> int:
        return self.metrics.epoch if self.metrics is not None else 0

    @property
    def best_val_acc(self) -> float:
        return float(self.best_metrics["val_acc"]) if self.best_metrics else -1.0

    def add(self, metrics: EpochMetrics, evaluation: Evaluation, trainer: Trainer) -> bool:
        """Takes in an epoch and tells whether it is the best so far; then a copy of its weights is kept, on the CPU."""
        self.metrics = metrics
        if evaluation.accuracy <= self.best_val_acc:
            return False
        self.best_metrics = metrics.as_dict()
        self.best_predictions = {"predicted": evaluation.predicted_N, "probability": evaluation.probability_N}
        weights, self.best_weights = trainer.evaluated_model.state_dict(), {}  # the old ones' memory is taken again
        self.best_weights = dict(zip(weights, copies_on_host(list(weights.values())), strict=True))
        return True

    def finished(self, trial: TrialConfig) -> bool:
        """Tells whether no epoch is left: all are done, or early stopping has waited long enough."""
        waited = self.epochs_done - int(self.best_metrics.get("epoch", 0))
        return self.epochs_done >= trial.epochs or bool(trial.early_stopping and waited >= trial.early_stopping)

    def report(self, trial: TrialConfig, ladder: Ladder, notes: list[str]) -> TrialReport:
        """Returns what is known after the last epoch."""
        assert self.metrics is not None
        steps = tuple(ladder.steps)
        return TrialReport(
            self.metrics, int(self.best_metrics["epoch"]), self.best_val_acc, self.finished(trial), steps, tuple(notes)
        )

    def state(self) -> dict[str, Any]:
        """Returns what `load_state` needs."""
        assert self.metrics is not None
        best = {
            "best_metrics": self.best_metrics,
            "best_weights": self.best_weights,
            "best_predictions": self.best_predictions,
        }
        return {"metrics": self.metrics.as_dict(), **best}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up what `state` returned."""
        self.metrics = EpochMetrics(**state["metrics"])
        self.best_metrics, self.best_weights, self.best_predictions = (
            state[f"best_{name}"] for name in ("metrics", "weights", "predictions")
        )
