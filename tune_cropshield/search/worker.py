"""What runs in a Ray worker: one trial after another, in one process that keeps its imports and its data."""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Generator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray import tune

from tune_cropshield.config.settings import RunConfig
from tune_cropshield.config.units import MIB
from tune_cropshield.data.dataset import DeviceData, LeafData
from tune_cropshield.errors import DeadContextError, DiskFull, DivergedError, FailedAssertion, OutOfMemory
from tune_cropshield.files import raising_disk_full
from tune_cropshield.memory.guard import cap_allocator, give_back, why_retire
from tune_cropshield.search.endings import (
    DISK_FULL,
    DIVERGED,
    FAILED,
    FINISHED,
    MEMORY_RETRIES,
    METRIC,
    NOTES,
    OUT_OF_MEMORY,
    OUTCOME,
    REASON,
    RETIRED,
)
from tune_cropshield.training.loop import TrialEnded, trial_epochs
from tune_cropshield.training.parts import part_epochs
from tune_cropshield.training.progress import TrialReport
from tune_cropshield.training.run_folder import PART, RunFolder

DEAD_CONTEXT = 70  # exit code of a process whose GPU context is gone
LEFT_MEMORY = 71  # of one whose last trial has not given its memory back, or has left it a dead GPU
ERROR_FILE = "error.txt"  # a failed trial's traceback, and what its process had logged last
LAST_LINES = 20
AFTER_ASSERTION = "the GPU stopped working after the last trial: its worker process was replaced"


class TrialWorker(tune.Trainable):
    """Trains the trial of its configuration, one epoch a step.

    Configuration: `number`, `folder` (where the trial's files go), `run` (a RunConfig as a dict), `parts` (the same of
    each of the trainings that the trial is; none where it is one) and `checkpoint_after` (the epochs after which it may
    be stopped and gone on with later). Everything that goes wrong inside a trial comes back as a result; only the death
    of this process reaches Ray as a failure, and the trial then goes on elsewhere from its checkpoint.
    """

    def setup(
        self, config: dict[str, Any], data: LeafData, device: str, memory_mib: float | None, resident_bytes: int
    ) -> None:
        """Called once per process. data: pickled as paths, opened here; device: "cpu" or "cuda".

        memory_mib: what this process's allocator may reserve; resident_bytes: how much of that the stores on the GPU
        may take.
        """
        cap_allocator(memory_mib, torch.device(device))  # before anything lies on it
        self._data = DeviceData(data, torch.device(device), resident_bytes)
        self._memory_mib = memory_mib
        self._retired = self._dead = False
        gc.collect()
        gc.freeze()  # what imports have made stays: to look through it between trials takes half a second, for nothing
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes up another trial in the same process.

        When the last one has left memory behind, or a GPU that takes no more work, the process ends itself at its first
        step instead.
        """
        if self._epochs is not None:
            # Ray hands a process on only when its trial was decided on; one that has not ended by itself was pruned.
            with suppress(TrialEnded, DiskFull):
                self._epochs.throw(TrialEnded())
        self.cleanup()
        reason = AFTER_ASSERTION if self._dead else why_retire(self._left_mib, self._data.resident_bytes / MIB)
        if reason is not None:
            folder = Path(new_config["folder"])
            folder.mkdir(parents=True, exist_ok=True)
            RunFolder(folder).add_event({"event": RETIRED, REASON: reason})
            print(reason, flush=True)
            self._retired = True
        else:
            self._start(new_config)
        return True

    def _start(self, config: dict[str, Any]) -> None:
        self._folder = Path(config["folder"])
        run, *parts = (RunConfig.model_validate(each) for each in (config["run"], *config["parts"]))
        options: dict[str, Any] = {"resume": True, "memory_mib": self._memory_mib}
        options["checkpoint_after"] = config["checkpoint_after"]
        self._epochs: Generator[TrialReport] | None
        if parts:
            between = partial(give_back, self._data.device)
            self._epochs = part_epochs(run, parts, self._data, self._folder, between=between, **options)
        else:
            self._epochs = trial_epochs(run, self._data, self._folder, **options)

    def step(self) -> dict[str, Any]:
        """Trains one epoch and returns its metrics, and how the trial ended if it did.

        On a full disk the trial stops without having ended.
        """
        if self._retired:
            os._exit(LEFT_MEMORY)  # only here, where Ray takes the trial for running: it then begins in another process
        assert self._epochs is not None
        try:
            report = next(self._epochs)
        except DivergedError as error:
            return {"done": True, "epoch": error.epoch, OUTCOME: DIVERGED, REASON: str(error)}
        except OutOfMemory as error:
            return {"done": True, OUTCOME: OUT_OF_MEMORY, REASON: str(error)}
        except DeadContextError as error:
            self._note_traceback()
            print(error, flush=True)
            os._exit(DEAD_CONTEXT)  # Ray starts another process, and the trial goes on there from its checkpoint
        except DiskFull as error:
            return {"done": True, DISK_FULL: str(error)}
        except Exception as error:
            self._dead = isinstance(error, FailedAssertion)
            self._note_traceback()
            return {"done": True, OUTCOME: FAILED, REASON: f"{type(error).__name__}: {error}".split("\n")[0]}
        if report.finished:
            with suppress(DiskFull):
                # its files are done: what comes until the next trial is waiting, and none of its time
                self._epochs.close()
        result: dict[str, Any] = {
            **report.metrics.as_dict(),
            METRIC: report.best_value,
            "best_val_acc": report.best_val_acc,
            "best_epoch": report.best_epoch,
            PART: report.part,
            "done": report.finished,
        }
        result |= {MEMORY_RETRIES: len(report.oom_retries), NOTES: report.notes}
        return {**result, OUTCOME: FINISHED} if report.finished else result

    def _note_traceback(self) -> None:
        with suppress(DiskFull), raising_disk_full(self._folder / ERROR_FILE):
            (self._folder / ERROR_FILE).write_text(f"{traceback.format_exc()}\n{_last_log_lines()}", encoding="utf-8")

    def cleanup(self) -> None:
        """Stops a trial under way with a checkpoint, and gives its memory back.

        It needs the checkpoint if the search was interrupted.
        """
        if self._epochs is not None:
            with suppress(DiskFull):  # it then goes on from an older checkpoint
                self._epochs.close()
        self._epochs = None
        self._left_mib = 0.0 if self._dead else give_back(self._data.device)


def _last_log_lines() -> str:
    """Returns the last lines of this process's log.

    "" where it has none of its own, or its place cannot be told (not on Linux).
    """
    try:
        log = Path(os.readlink("/proc/self/fd/2"))
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:] if log.is_file() else []
    except OSError:
        return ""
    return "\n".join([f"The last lines of {log.name}:", *lines, ""]) if lines else ""
