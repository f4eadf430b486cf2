"""One trial from top to bottom: data, model, optimizer, epochs, evaluation, checkpoints, reports.

It is a complete program without a search: `run_trial(config, data, folder, report=print)`. What is done when something
fails stands side by side in retries/: memory that runs out, numbers outside fp16's range, a driver that spills.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from tune_cropshield.config.goals import goal_named
from tune_cropshield.config.own_files import keep_code
from tune_cropshield.config.settings import Precision, RunConfig, TrialConfig, save_config
from tune_cropshield.config.units import MIB
from tune_cropshield.data.dataset import DeviceData
from tune_cropshield.data.preparation import judged_on
from tune_cropshield.data.windows import Window, training_windows
from tune_cropshield.errors import DivergedError
from tune_cropshield.files import raising_disk_full, remove_leftovers, sync_tree
from tune_cropshield.training.board import ScalarEvents, events_folder
from tune_cropshield.training.build import build_trainer, window_settings
from tune_cropshield.training.clock import CHECKPOINT, REPORT, STEP, TrialClock
from tune_cropshield.training.evaluate import evaluation_batch, split_batches
from tune_cropshield.training.gpu_errors import gpu_errors_named
from tune_cropshield.training.metrics import EpochMetrics, Evaluation
from tune_cropshield.training.model_checks import smallest_micro_batch
from tune_cropshield.training.own_metric import own_value
from tune_cropshield.training.precision import DTYPES
from tune_cropshield.training.predictions import judged
from tune_cropshield.training.progress import Progress, TrialReport
from tune_cropshield.training.retries.out_of_memory import OutOfMemoryPolicy
from tune_cropshield.training.retries.spilling import SpillPolicy
from tune_cropshield.training.retries.wider_precision import PrecisionChange, PrecisionPolicy
from tune_cropshield.training.run_folder import CONFIG, PREPARATION, RunFolder, write_json
from tune_cropshield.training.trainer import Trainer

# A kill costs at most this much training and the epoch under way, an orderly end only the latter.
CHECKPOINT_EVERY_S = 10.0


class TrialEnded(Exception):
    """Thrown into `trial_epochs`, it ends the trial for good: nobody will go on with it, so no checkpoint is saved."""


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
    """Trains one network to its end and returns the last report. Arguments and errors are those of `trial_epochs`.

    Its files are then on the disk: a power cut takes none of them.
    """
    last = None
    options = {"resume": resume, "checkpoint_every_s": checkpoint_every_s, "memory_mib": memory_mib}
    with closing(trial_epochs(config, data, folder, **options)) as epochs:  # type: ignore[arg-type]
        for last in epochs:
            report(last)
    sync_tree(folder)
    assert last is not None
    return last


def trial_epochs(
    config: RunConfig,
    data: DeviceData,
    folder: Path,
    *,
    resume: bool = False,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    checkpoint_after: Collection[int] = (),
    memory_mib: float | None = None,
) -> Generator[TrialReport]:
    """Trains one network, yielding a report after each epoch, and writes its files (see `run_folder`) into `folder`.

    Before an epoch is reported, its metrics are written, and the weights where they are the best so far. Closing the
    iterator early saves a checkpoint, so that only an epoch under way is lost; throwing TrialEnded into it saves none.

    Args:
        resume: go on from the folder's last checkpoint, with the same numbers as if it had never stopped; without a
            checkpoint, from the start. The checkpoint's epoch is reported again first: whoever listens may have been
            killed before hearing of it. A damaged checkpoint is passed over for the one before, and events.jsonl says
            so.
        checkpoint_every_s: seconds of training after which a checkpoint is saved at an epoch's end.
        checkpoint_after: epochs after which one is saved in any case, before they are reported: somebody may stop the
            trial there, and go on with it later.
        memory_mib: what this process's allocator may reserve on a GPU (the caller has capped it); None: all there is.

    Raises:
        DivergedError: training stopped being finite, in every precision that was tried.
        OutOfMemory: smaller micro-batches do not help.
        DeadContextError: the GPU takes no more work from this process.
        DiskFull: nothing more can be written; everything so far is whole.
        RunFailure: the checkpoint is of another version.
    """
    trial, data = config.trial, data.as_said(config.data)
    with raising_disk_full(folder):
        folder.mkdir(parents=True, exist_ok=True)
        clock = TrialClock(folder)
        remove_leftovers(folder)
        save_config(config, folder / CONFIG)
        keep_code(config.trial.model_dump(), folder)
        write_json(folder / PREPARATION, judged_on(config).as_dict())
        run, notes = RunFolder(folder), list[str]()
        if trial.threads is not None:
            torch.set_num_threads(trial.threads)

        # What to do when something fails.
        memory = OutOfMemoryPolicy(
            trial.effective_batch,
            trial.pair[0],
            evaluation_batch(trial),
            even=trial.mixes,
            smallest=partial(smallest_micro_batch, trial),
            note=lambda retry: run.add_event({"event": "out of memory", **asdict(retry)}),
        )
        precision = PrecisionPolicy(
            trial.precision, data.device, lambda change: _note_precision_change(change, run, notes)
        )
        spilling = SpillPolicy(memory_mib, data.device)

        # Where an earlier process stopped.
        progress = Progress()
        checkpoint, damage = run.checkpoint() if resume else (None, [])
        if checkpoint is not None:
            progress.load_state(checkpoint["progress"])
            memory.load_state(checkpoint["batches"])
            precision.precision = checkpoint["precision"]
        if damage:
            run.add_event(
                {"event": "damaged checkpoint", "reasons": damage, "goes_on_after_epoch": progress.epochs_done}
            )
            notes.append(f"{'; '.join(damage)}: it continues after epoch {progress.epochs_done}")
        run.keep_metrics_until(progress.epochs_done)

        # Network, optimizer and schedule.
        train_indices = data.indices("train")
        train_labels = data.labels_N[train_indices].cpu()

        def new_trainer(precision: Precision) -> Trainer:
            settings = trial.model_copy(update={"precision": precision})
            trainer = build_trainer(settings, len(data.data.classes), train_labels, data.device)
            memory.adapt(trainer)
            return trainer

        with gpu_errors_named():
            trainer = new_trainer(precision.precision)
            if checkpoint is not None:
                trainer.load_state(checkpoint["trainer"])
                precision.epoch_was_good(trainer, progress.epochs_done)
                del checkpoint  # it takes as much memory again

        if progress.metrics is not None:
            _save_best(run, progress, data)
            yield progress.report(trial, memory.retries, notes)
            if progress.finished(trial):
                return

        def save_checkpoint() -> None:
            state = {"trainer": precision.good_state(trainer), "precision": precision.precision}
            run.save_checkpoint({**state, "batches": memory.state(), "progress": progress.state()})

        with _last_line(clock), closing(ScalarEvents(events_folder(folder), progress.epochs_done + 1)) as events:
            saved_at, saved_epoch = time.perf_counter(), progress.epochs_done
            clock.write("setup")
            while not progress.finished(trial):
                epoch = progress.epochs_done + 1
                with gpu_errors_named():
                    failure = None
                    try:
                        metrics, evaluation = _train_and_validate(trial, trainer, memory, data, epoch, clock)
                    except DivergedError as error:
                        if not precision.can_widen:
                            raise
                        failure = error.what  # not the error itself: it holds on to the old trainer's memory
                    if failure is not None:
                        del trainer
                        trainer = precision.rebuild_wider(new_trainer, failure)
                        metrics, evaluation = _train_and_validate(trial, trainer, memory, data, epoch, clock)
                    clock.enter(CHECKPOINT)
                    spilling.epoch_ended(trainer, memory, metrics, trial.size_at(epoch - 1), len(train_indices))
                    precision.epoch_was_good(trainer, epoch)
                    _note_eager_steps(trainer, run, notes)
                    is_best = progress.add(metrics, evaluation, trainer)
                clock.enter(REPORT)
                run.add_metrics(metrics.line())
                events.add(metrics, progress.best_metrics, trainer.backbone_lrs(metrics.lr))

                clock.enter(CHECKPOINT)
                if is_best:
                    _save_best(run, progress, data)
                is_due = epoch in checkpoint_after or time.perf_counter() - saved_at >= checkpoint_every_s
                if progress.finished(trial) or is_due:
                    save_checkpoint()
                    saved_at, saved_epoch = time.perf_counter(), epoch

                clock.enter(REPORT)
                clock.write("epoch")
                try:
                    yield progress.report(trial, memory.retries, notes)
                except GeneratorExit:
                    clock.enter(CHECKPOINT)
                    if saved_epoch < epoch:
                        save_checkpoint()
                    raise


def _train_and_validate(
    trial: TrialConfig, trainer: Trainer, memory: OutOfMemoryPolicy, data: DeviceData, epoch: int, clock: TrialClock
) -> tuple[EpochMetrics, Evaluation]:
    """Trains epoch `epoch` (from 1), evaluates on the validation split, and returns the figures."""
    clock.enter(STEP)
    started = time.perf_counter()
    if data.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(data.device)
    size, dtype = trial.size_at(epoch - 1), DTYPES[trainer.step.precision]
    feed, indices = data.feed(size), data.indices("train")
    waited_before = feed.wait_s

    def windows_from(micro_batch: int, first_window: int) -> Generator[Window]:
        settings = window_settings(trial, micro_batch, dtype)
        return training_windows(feed, data.labels_N, indices, settings, epoch - 1, size, first_window, data.weights_N)

    trained = memory.train_epoch(trainer, windows_from, epoch)
    data_wait_s = feed.wait_s - waited_before
    clock.trained(data_wait_s)
    evaluation = memory.validate(trainer, lambda batch: split_batches(trial, data, "val", dtype, batch), epoch)
    updates, goal = trained.updates, goal_named(trial.metric)
    metrics = EpochMetrics(
        epoch=epoch,
        updates=int(trainer.step.updates),
        train_loss=updates.train_loss,
        val_loss=evaluation.loss,
        val_acc=evaluation.accuracy,
        val_macro_f1=evaluation.macro_f1,
        val_balanced_acc=evaluation.balanced_accuracy,
        val_auc=evaluation.auc,
        lr=updates.last_lr,
        grad_norm_p50=updates.grad_norm_p50,
        grad_norm_p95=updates.grad_norm_p95,
        clip_rate=updates.clip_rate,
        skipped_steps=updates.skipped_steps,
        loss_scale=trainer.step.scaler.get_scale(),
        images_per_s=trained.images / trained.seconds,
        data_wait_s=data_wait_s,
        epoch_s=time.perf_counter() - started,
        peak_vram_mib=torch.cuda.max_memory_reserved(data.device) / MIB if data.device.type == "cuda" else 0.0,
        goal=goal,
        own=own_value(trial.metric, evaluation.labels_N, evaluation.probabilities_NK),
    )
    return metrics, evaluation


def _save_best(run: RunFolder, progress: Progress, data: DeviceData) -> None:
    photographs = data.data
    indices, kept = photographs.split.val, progress.best_predictions
    predictions = judged(
        [photographs.store.paths[index] for index in indices],
        photographs.store.labels[torch.from_numpy(indices)].tolist(),
        kept["predicted"].tolist(),
        kept["probability"].tolist(),
        photographs.classes,
    )
    run.save_best(progress.best_weights, predictions, progress.best_metrics, photographs.classes)


def _note_precision_change(change: PrecisionChange, run: RunFolder, notes: list[str]) -> None:
    run.add_event({"event": "precision", **asdict(change)})
    notes.append(change.told)


def _note_eager_steps(trainer: Trainer, run: RunFolder, notes: list[str]) -> None:
    """Notes, once, why steps run kernel by kernel where they could be CUDA graphs."""
    if (reason := trainer.step.runner.reason) is None:
        return
    note = f"steps run kernel by kernel, not as CUDA graphs: {reason}"
    if note not in notes:
        run.add_event({"event": "no CUDA graphs", "reason": note})
        notes.append(note)


@contextmanager
def _last_line(clock: TrialClock) -> Iterator[None]:
    """Writes the clock's last line when the block ends, however it does."""
    try:
        yield
    finally:
        clock.enter(CHECKPOINT)
        clock.write("end")
