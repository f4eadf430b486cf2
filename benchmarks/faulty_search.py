"""A search whose trials meet a fault, in a process of its own: chaos_faults.py starts it.

    python benchmarks/faulty_search.py FAULT --out DIR --data DIR [--trials N]

Faults: nan (NaN loss in epoch 3 of trial 0), none (trial 0 reports no accuracy from epoch 2 on), overflow (50 windows
of trial 0 overflow in fp16), clock (it jumps back an hour while trials run), same (every trial fails in the same way),
different (each in its own way), deaf (every trial is trained with the settings of trial 0). Prints one JSON object: how
the search ended.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from chaos_search import SPACE
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from tune_cropshield.config.space_file import load_space
from tune_cropshield.data.dataset import open_data
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search import folder as files
from tune_cropshield.search.context import begin_search
from tune_cropshield.search.endings import METRIC
from tune_cropshield.search.prepare import Prepared
from tune_cropshield.search.resources import divide
from tune_cropshield.search.run import run_search
from tune_cropshield.search.trial_settings import effective_batches
from tune_cropshield.search.views.plain import PlainView

JUMP_S = 3600.0


def head_output_changed(change: Callable[[int, Tensor], Tensor | None]) -> Any:
    """Lets `change`: (training calls so far, output) replace what networks' heads return while they train; call
    `remove` on the result to end it.
    """
    calls = [0]

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if not isinstance(module, nn.Linear) or not torch.is_grad_enabled():
            return None
        calls[0] += 1
        return change(calls[0] - 1, output)

    return register_module_forward_hook(hook)


def clock_that_jumps_back(after_s: float) -> Callable[[], float]:
    """Returns a clock that runs an hour late from `after_s` on."""
    right, started = time.time, time.monotonic()
    return lambda: right() - (JUMP_S if time.monotonic() - started > after_s else 0.0)


def faulty_worker(fault: str) -> Callable[[], type[Any]]:
    """Returns what `run_search` asks for its worker."""

    def make() -> type[Any]:
        from tune_cropshield.search.worker import TrialWorker

        class FaultyWorker(TrialWorker):
            """Meets the fault in the trial that it is for."""

            def _start(self, config: dict[str, Any]) -> None:
                self.number, self.steps = config["number"], 0
                if fault == "deaf":
                    self.first = getattr(self, "first", config["run"])
                    config = {**config, "run": self.first}
                if fault == "clock" and self.number == 0:
                    time.time = clock_that_jumps_back(2.0)
                super()._start(config)
                self.hook = None
                if self.number == 0 and fault == "overflow":
                    self.hook = head_output_changed(
                        lambda call, output: output * float("inf") if 8 <= call < 58 and output_in_fp16() else None
                    )

            def step(self) -> dict[str, Any]:
                self.steps += 1
                if fault in ("same", "different"):
                    self._fail(fault)
                if fault == "nan" and self.number == 0 and self.steps == 3:
                    self.hook = head_output_changed(lambda call, output: output * float("nan"))
                result = super().step()
                if fault == "none" and self.number == 0 and self.steps >= 2:
                    result[METRIC] = None
                return result

            def _fail(self, fault: str) -> None:
                reason = "the lens is dirty" if fault == "same" else f"lens {self.number} is dirty"

                def epochs() -> Any:
                    raise RuntimeError(reason)
                    yield

                self._epochs = epochs()

            def cleanup(self) -> None:
                if getattr(self, "hook", None) is not None:
                    self.hook.remove()
                super().cleanup()

        return FaultyWorker

    return make


def output_in_fp16() -> bool:
    """Tells whether the forward pass under way is in fp16."""
    return torch.is_autocast_enabled("cpu")


def main() -> None:
    """Searches with the fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fault", choices=("nan", "none", "overflow", "clock", "same", "different", "deaf"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=4)
    arguments = parser.parse_args()
    files.make_folder(arguments.out)
    text = SPACE.replace("[trial]", '[trial]\nprecision = "fp16"') if arguments.fault == "overflow" else SPACE
    space_file = arguments.out.with_name("faulty.toml")
    space_file.write_text(text)
    space = load_space(space_file, {"data": {"dir": str(arguments.data)}, "search": {"trials": arguments.trials}})
    cache = arguments.out.with_name("cache")
    data = open_data(space.data, {32}, cache)
    if arguments.fault == "clock":
        time.time = clock_that_jumps_back(10.0)
    worker = faulty_worker(arguments.fault)
    resources = divide("cpu", 1, arguments.trials)
    plan = plan_for_cpu(effective_batches(space))
    found = Prepared(space, data, plan, resources, None, cache)
    search = begin_search(found, arguments.out, PlainView(), resume=False, command=["faulty_search"])
    outcome = run_search(search, worker)
    print(json.dumps({"stopped": outcome.stopped, "failed": outcome.failed}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
