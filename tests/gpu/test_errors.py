"""Errors of a real GPU, in processes of their own, since they may end its context. These tests need a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

ROOT = Path(__file__).parents[2]
HEAD = """
import torch
from torch.nn import functional as F
from tune_cropshield.training.gpu_errors import gpu_errors_named

network = torch.nn.Linear(4, 4).cuda()
images = torch.randn(8, 4, device="cuda")

def end(error):
    print(type(error).__name__, str(error).splitlines()[0])
"""


def told(code: str) -> str:
    """Returns the last line that a program on the GPU says."""
    done = subprocess.run([sys.executable, "-c", HEAD + code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_an_assertion_that_a_library_notices_first_is_the_programs_fault() -> None:
    code = """
try:
    with gpu_errors_named():
        F.cross_entropy(network(images), torch.full((8,), 99, device="cuda")).backward()
        torch.cuda.synchronize()
except Exception as error:
    end(error)
"""
    assert told(code).startswith(
        "FailedAssertion the program failed on the GPU: CUDA error: device-side assert triggered"
    )


def test_a_wrong_argument_leaves_the_process_to_go_on() -> None:
    code = """
try:
    with gpu_errors_named():
        torch.cuda.set_device(torch.cuda.device_count() + 1)
except Exception as error:
    end(error)
print(float(network(images).isfinite().all()))
"""
    assert told(code) == "1.0"
