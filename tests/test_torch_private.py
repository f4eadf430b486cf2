"""The undocumented parts of PyTorch that training relies on: a failure here names the one that has moved."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from tune_cropshield import torch_private
from tune_cropshield.training.models import build_model


def stepped(gradient: float) -> tuple[torch.amp.GradScaler, torch.optim.Optimizer, nn.Linear]:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(()))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    scaler.unscale_(optimizer)
    return scaler, optimizer, model


@pytest.mark.parametrize(("gradient", "expected"), [(1.0, 0.0), (float("inf"), 1.0), (float("nan"), 1.0)])
def test_the_scaler_tells_whether_a_gradient_was_not_finite(gradient: float, expected: float) -> None:
    scaler, optimizer, _ = stepped(gradient)

    assert float(torch_private.found_inf(scaler, optimizer)) == expected


def test_unscaling_can_be_forgotten() -> None:
    scaler, optimizer, _ = stepped(1.0)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(optimizer)

    torch_private.forget_unscaled(scaler)
    scaler.unscale_(optimizer)

    assert float(torch_private.found_inf(scaler, optimizer)) == 0.0


def test_fused_optimizers_say_that_they_read_found_inf_and_do() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, fused=True)
    assert torch_private.reads_found_inf(optimizer)
    assert not torch_private.reads_found_inf(torch.optim.AdamW(model.parameters(), lr=1.0, fused=False))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)

    optimizer.grad_scale, optimizer.found_inf = None, torch.ones(())  # type: ignore[attr-defined]
    optimizer.step()

    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_batch_norms_have_a_common_base() -> None:
    assert isinstance(nn.BatchNorm1d(1), torch_private.BatchNorm)
    assert not isinstance(nn.Linear(1, 1), torch_private.BatchNorm)


def test_a_running_profiler_is_seen() -> None:
    assert not torch_private.is_profiling()
    with profile(activities=[ProfilerActivity.CPU]):
        assert torch_private.is_profiling()


def test_every_batch_norm_has_the_common_base() -> None:
    for layer in (nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2)):
        assert isinstance(layer, torch_private.BatchNorm)
    assert not isinstance(nn.GroupNorm(1, 2), torch_private.BatchNorm)


def test_weights_load_with_the_versions_of_this_pytorch() -> None:
    model = build_model("mnasnet0_5", 3)
    plain = dict(model.state_dict())
    with pytest.raises(ValueError):
        model.load_state_dict(plain)

    model.load_state_dict(torch_private.with_versions(plain, model))

    assert torch_private.with_versions(plain, model)._metadata == model.state_dict()._metadata  # type: ignore[attr-defined]


def test_many_tensors_are_changed_at_once() -> None:
    ones, halves = [torch.ones(2), torch.ones(3)], [torch.full((2,), 0.5), torch.full((3,), 0.5)]

    assert [float(norm) for norm in torch_private.foreach_norm(halves, float("inf"))] == [0.5, 0.5]
    torch_private.foreach_add_(ones, halves)
    torch_private.foreach_mul_(ones, torch.tensor(2.0))
    assert [part.tolist() for part in ones] == [[3.0] * 2, [3.0] * 3]
    narrow = [torch.empty(2, dtype=torch.float16), torch.empty(3, dtype=torch.float16)]
    torch_private.foreach_copy_(narrow, ones)
    assert [part.tolist() for part in narrow] == [[3.0] * 2, [3.0] * 3]
    torch_private.foreach_zero_(narrow)
    assert [part.tolist() for part in narrow] == [[0.0] * 2, [0.0] * 3]


def test_pytorch_knows_the_drivers_number_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")

    assert [torch_private.nvml_index(index) for index in (0, 1)] == [2, 0]


@pytest.mark.skipif(torch.version.cuda is None, reason="this PyTorch is built without CUDA")
def test_cublas_workspaces_can_be_given_back() -> None:
    assert callable(torch._C._cuda_clearCublasWorkspaces)
    torch_private.give_back_cublas_workspaces()  # without a GPU there are none
