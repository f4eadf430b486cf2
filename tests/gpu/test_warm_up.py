"""What a process that waits for trials does on a GPU. This test needs one."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SCRIPT = """
import torch
from tune_cropshield.config import TrialConfig
from tune_cropshield.search.warm_up import WarmUp

WarmUp(trial=TrialConfig(model="tiny_cnn", image_size=40, effective_batch=16, micro_batch=16)).run()
print(torch.cuda.is_initialized(), torch.cuda.max_memory_allocated() > 0)
"""


def test_a_fresh_process_runs_the_step_of_trials_to_come() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    assert "Traceback" not in done.stderr
    assert done.stdout.split() == ["True", "True"]


CONTEXT = """
import ctypes
from tune_cropshield.search.warm_up import make_context

make_context()
flags, active = ctypes.c_uint(), ctypes.c_int()
ctypes.CDLL("libcuda.so.1").cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active))
print(active.value)
"""


def test_the_context_is_there_before_pytorch_asks_for_it() -> None:
    assert subprocess.run([sys.executable, "-c", CONTEXT], capture_output=True, text=True, check=True, timeout=120).stdout == "1\n"
