"""PyTorch's compiler stays unloaded, and is whole for whoever wants it after all: each in a fresh interpreter."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from test_imports import run_python

from tune_cropshield.memory.estimate import estimate_memory
from tune_cropshield.training import optim

LOADED = "print([name for name in ('torch._dynamo', 'torch._dynamo.eval_frame', 'torch._inductor') if name in sys.modules])\n"
STEP = """
def weight_after_a_step(kind, compiled):
    model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    optimizer = kind([model.weight], lr=torch.tensor(0.5))
    def step(images):
        optimizer.zero_grad()
        model(images).sum().backward()
        optimizer.step()
    (torch.compile(step, backend="eager") if compiled else step)(torch.tensor([[1.0, 3.0]]))
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    return model.weight.tolist()
"""


def test_a_whole_trial_of_torchvisions_network_does_not_load_it_and_torch_compile_works_afterwards(drawn_leaves: Path, tmp_path: Path) -> None:
    code = f"""
import sys, torch
from pathlib import Path
from tune_cropshield.commands.image_sizes import check_image_sizes
from tune_cropshield.config import DataConfig, RunConfig, TrialConfig
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.trial import run_trial
{STEP}
trial = TrialConfig(model="efficientnet_b0", image_size=32, epochs=1, threads=1)
check_image_sizes(trial)
run = RunConfig(data=DataConfig(dir={str(drawn_leaves)!r}), trial=trial)
data = DeviceData(open_data(run.data, {{32}}, Path({str(tmp_path / "cache")!r})), torch.device("cpu"))
print(run_trial(run, data, Path({str(tmp_path / "run")!r}), report=lambda report: None).finished)
{LOADED}
print(torch.compile(lambda x: x.sin() + 1, backend="eager", fullgraph=True)(torch.zeros(2)).tolist())
print(weight_after_a_step(torch.optim.SGD, compiled=False), weight_after_a_step(torch.optim.SGD, compiled=True))
{LOADED}
"""
    weights = [[0.5, -0.5]]
    assert run_python(code).splitlines() == [
        "True",
        "[]",
        "[1.0, 1.0]",
        f"{weights} {weights}",
        "['torch._dynamo', 'torch._dynamo.eval_frame', 'torch._inductor']",
    ]


def test_an_estimate_does_not_load_it_and_says_the_same_as_with_it() -> None:
    code = f"""
import sys
from tune_cropshield.memory.estimate import estimate_memory
print(estimate_memory("resnet18", 4, 64, "fp16"))
{LOADED}
"""
    importlib.import_module("torch._dynamo")
    assert run_python(code).splitlines() == [repr(estimate_memory("resnet18", 4, 64, "fp16")), "[]"]


@pytest.mark.parametrize(("ours", "theirs"), [(optim.AdamW, torch.optim.AdamW), (optim.SGD, torch.optim.SGD)], ids=["AdamW", "SGD"])
def test_our_optimizers_update_to_the_same_numbers_as_pytorchs_to_the_last_bit(ours: Any, theirs: Any) -> None:
    weights = []
    for kind in (ours, theirs):
        torch.manual_seed(0)
        model = torch.nn.Linear(5, 3)
        optimizer = kind(model.parameters(), lr=torch.tensor(0.01), fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(7, 5)).square().sum().backward()
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        weights.append(torch.cat([model.weight.flatten(), model.bias]))
    assert torch.equal(*weights)


def test_whoever_asks_the_stand_ins_for_more_gets_it_from_the_compiler() -> None:
    """Each question comes while the stand-ins are there; a module that runs twice would give another config than the one that is in force."""
    for question in (
        "import torch._dynamo.exc; config = torch._dynamo.config",
        "from torch._dynamo.utils import config",
    ):
        code = f"""
import sys, torch
from tune_cropshield.no_compiler import no_compiler
with no_compiler():
    {question}
import torch._dynamo.utils
print(config is torch._dynamo.config is torch._dynamo.utils.config is sys.modules["torch._dynamo.config"])
exc = torch._dynamo.exc
print(all(module.__spec__.loader is module.__loader__ for module in (config, exc)), torch._dynamo.__file__.endswith("__init__.py"))
"""
        assert run_python(code) == "True\nTrue True\n", question


def test_whoever_looks_through_the_modules_does_not_load_it() -> None:
    code = f"""
import importlib.util, inspect, sys, torch
from tune_cropshield.no_compiler import no_compiler
with no_compiler():
    modules = [module for name, module in list(sys.modules.items()) if name in ("torch._dynamo", "torch._dynamo.utils")]
    for module in modules:
        print([hasattr(module, name) for name in ("__file__", "__warningregistry__", "__wrapped__")], module.__name__, module.__spec__)
    print(inspect.getmodule(compile("1", "nowhere", "eval")), importlib.util.find_spec("torch._dynamo.config").name)
    print(sum(type(module).__name__ == "_StandIn" for module in map(sys.modules.get, ("torch._dynamo", "torch._dynamo.utils"))))
{LOADED}
"""
    assert run_python(code).splitlines() == [
        "[False, False, False] torch._dynamo None",
        "[False, False, False] torch._dynamo.utils None",
        "None torch._dynamo.config",
        "2",
        "[]",
    ]


def test_blocks_in_many_threads_and_a_thread_that_wants_the_compiler_do_not_disturb_each_other() -> None:
    code = f"""
import sys, torch
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from tune_cropshield.no_compiler import import_without_compiler, no_compiler
sys.setswitchinterval(1e-6)
start = Barrier(6)
def leave_out(_):
    start.wait()
    for _ in range(2000):
        with no_compiler(), no_compiler():
            import torch._dynamo
            torch._dynamo.graph_break
    return import_without_compiler("torchvision.models").resnet18 is not None
def compile_something(_):
    start.wait()
    import torch._dynamo.config
    return torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item()
with ThreadPoolExecutor(6) as pool:
    jobs = [pool.submit(leave_out if number < 4 else compile_something, number) for number in range(6)]
    print([job.result() for job in jobs])
{LOADED}
"""
    assert run_python(code) == "[True, True, True, True, 2.0, 2.0]\n['torch._dynamo', 'torch._dynamo.eval_frame', 'torch._inductor']\n"


def test_torchvision_detects_objects_as_ever() -> None:
    code = f"""
import sys, torch
from tune_cropshield.no_compiler import import_without_compiler
ops = import_without_compiler("torchvision.ops")
image, box = torch.arange(64.0).reshape(1, 1, 8, 8), torch.tensor([[0, 1.0, 1.0, 5.0, 5.0]])
print(ops.roi_align(image, box, 1).item())
{LOADED}
print(sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu"), sys.modules["torchvision.ops.roi_align"].is_compile_supported("meta"))
print(torch.compile(ops.roi_align, backend="eager", fullgraph=True)(image, box, 1).item())
"""
    assert run_python(code).splitlines() == ["27.0", "[]", "True False", "27.0"]
