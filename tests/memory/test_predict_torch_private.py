"""The undocumented parts of PyTorch that the memory estimate relies on: a failure here names the one that has moved."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tune_cropshield.cli import main
from tune_cropshield.memory.predict import torch_private

WITHOUT_AN_OPERATOR = """
import sys, torch
name = "_scaled_dot_product_flash_attention_for_cpu"
namespace = type(torch.ops.aten)
look_up = namespace.__getattr__
def without(self, wanted):
    if wanted == name:
        raise AttributeError(f"'aten' has no attribute {wanted!r}")
    return look_up(self, wanted)
torch.ops.aten.__dict__.pop(name, None)
namespace.__getattr__ = without
from tune_cropshield.cli import main
raise SystemExit(main(sys.argv[1:]))
"""
ESTIMATE = ("plan", "--estimate", "--model", "tiny_cnn", "--image-size", "32")


def run_cli(*arguments: str) -> tuple[int, str]:
    """Returns (exit code, what was printed) of a command, in an interpreter whose PyTorch lacks a private operator."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_AN_OPERATOR, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=110,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_without_a_private_operator_a_trial_trains(home: Path, drawn_leaves: Path) -> None:
    config = home / "config.toml"
    config.write_text(
        '[trial]\nmodel = "tiny_cnn"\nimage_size = 32\nepochs = 1\neffective_batch = 32\n', encoding="utf-8"
    )

    code, said = run_cli(
        "train", "--config", str(config), "--data", str(drawn_leaves), "--out", str(home / "out"),
        "--device", "cpu",
    )  # fmt: skip

    assert code == 0, said
    assert (home / "out" / "metrics.jsonl").read_text().count("\n") == 1


@pytest.mark.slow
def test_without_a_private_operator_an_estimate_says_so() -> None:
    code, said = run_cli(*ESTIMATE)

    assert code == 2
    assert "memory cannot be estimated with PyTorch" in said
    assert "_scaled_dot_product_flash_attention_for_cpu" in said
    assert "on a machine with a GPU, plan without --estimate measures it" in said
    assert main(list(ESTIMATE)) == 0  # with all of them


def test_operators_are_replaced_in_this_thread_and_inside_the_block_only() -> None:
    values = torch.ones(2, 2)
    seen: list[Tensor] = []

    def doubled(left: Tensor, right: Tensor) -> Tensor:
        return 2 * torch.mm(left, right)  # not replaced: what a kernel calls itself

    with torch_private.replaced_operators({"mm": doubled}):
        assert torch.mm(values, values).tolist() == [[4.0, 4.0], [4.0, 4.0]]
        other = threading.Thread(target=lambda: seen.append(torch.mm(values, values)))
        other.start()
        other.join()
    assert seen[0].tolist() == torch.mm(values, values).tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_the_dispatch_mode_sees_the_backward_pass() -> None:
    names: list[str] = []

    class Names(torch_private.DispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            names.append(func.name())
            return func(*args, **(kwargs or {}))

    images = torch.empty(2, 3, 8, 8, device="meta")
    with Names():
        nn.Conv2d(3, 4, 3, device="meta")(images).sum().backward()

    assert "aten::convolution" in names and "aten::convolution_backward" in names


def test_fused_attention_and_its_backward_pass_run_on_meta() -> None:
    query = torch.empty(2, 4, 16, 8, device="meta", requires_grad=True)
    names: list[object] = []

    class Operators(torch_private.DispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            names.append(func)
            return func(*args, **(kwargs or {}))

    with Operators():
        output = torch_private.fused_attention(query, query, query, 0.0, False)[0]
        output.sum().backward()

    assert output.shape == (2, 4, 16, 8)
    assert torch_private.fused_attention_backward in names


def test_softmax_can_be_told_to_read_fp16_and_write_fp32() -> None:
    values = torch.empty(2, 5, dtype=torch.float16, device="meta")

    assert torch_private.fused_softmax(values, 1, True).dtype == torch.float32
    assert torch_private.fused_log_softmax(values, 1, True).dtype == torch.float32


def test_a_storage_keeps_its_python_object_for_as_long_as_it_lives() -> None:
    tensor = torch.empty(4, device="meta")
    died: list[object] = []
    alive = weakref.ref(tensor.untyped_storage(), died.append)
    view = tensor.view(2, 2)
    del tensor

    assert alive() is view.untyped_storage() and not died
    del view
    assert len(died) == 1


def test_gradients_of_a_tensor_that_is_used_twice_are_summed_where_autograd_alone_holds_them() -> None:
    in_place: list[bool] = []

    class Sums(torch_private.DispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func is torch.ops.aten.add.Tensor:
                in_place.append(torch_private.sums_in_place(func, args[0]))
            return func(*args, **(kwargs or {}))

    images = torch.empty(4, 4, device="meta", requires_grad=True)
    kept: list[Tensor] = []
    with Sums():
        (images.exp() + images.sin()).sum().backward()
        branch = images.exp()
        branch.register_hook(kept.append)
        (branch.cos() + branch * images).sum().backward()

    forward, backward, forward_again, *backward_again = in_place
    assert (forward, forward_again) == (False, False)
    assert backward and any(backward_again)
