"""Memory that runs out inside a window: the same window again in smaller parts, and nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tune_cropshield.config.settings import Precision
from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.mixing import Mixing
from tune_cropshield.data.windows import EvaluationBatch, Window, WindowSettings, evaluation_batches, training_windows
from tune_cropshield.errors import DeadContextError, DivergedError, FailedAssertion, OutOfMemory
from tune_cropshield.training.clipping import Clipping
from tune_cropshield.training.gpu_errors import gpu_errors_named, what_killed_context
from tune_cropshield.training.losses import CrossEntropy
from tune_cropshield.training.metrics import Evaluation
from tune_cropshield.training.models import correct_momentum
from tune_cropshield.training.optimizers import build_optimizer
from tune_cropshield.training.precision import gradient_scaler
from tune_cropshield.training.retries.out_of_memory import BatchesOf, OutOfMemoryPolicy, OutOfMemoryRetry, WindowsFrom
from tune_cropshield.training.step import WindowStep
from tune_cropshield.training.trainer import TrainedEpoch, Trainer
from tune_cropshield.training.update_log import UpdateLog

CPU = torch.device("cpu")
CLASSES, SIDE, SAMPLES, EFFECTIVE_BATCH = 3, 8, 40, 16  # windows of 16, 16 and 8

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.75 GiB"),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"
    ),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError(
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input."
    ),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
        "to allocate 9 bytes."
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:81] data. DefaultCPUAllocator: not enough memory: you tried to "
        "allocate 9 bytes."
    ),
]


class Failing(nn.Module):
    """A network that raises `errors[n]` in its n-th forward pass, after all its layers have run: dropout has drawn,
    batch norms have moved.
    """

    def __init__(self, network: nn.Module, errors: dict[int, Exception]) -> None:
        super().__init__()
        self.network, self.errors = network, errors
        self.calls = 0

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.network(images_BCHW)
        self.calls += 1
        if self.calls - 1 in self.errors:
            raise self.errors[self.calls - 1]
        return logits_BK


class Endless(dict[int, Exception]):
    """An error for every forward pass."""

    def __contains__(self, call: object) -> bool:
        return True

    def __missing__(self, call: int) -> Exception:
        return OUT_OF_MEMORY[0]


def network(batch_norm: bool = False, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(3)
    norm: nn.Module = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), norm, nn.Tanh(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(4 * (SIDE - 2) ** 2, CLASSES)
    )


@dataclass
class Retrying:
    """A trainer, and the policy that it is trained by."""

    trainer: Trainer
    policy: OutOfMemoryPolicy

    @property
    def now(self) -> tuple[int, int]:
        """The micro-batch and the evaluation's batch."""
        return self.policy.micro_batch, self.policy.eval_batch

    def train_epoch(self, windows_from: WindowsFrom, epoch: int) -> TrainedEpoch:
        return self.policy.train_epoch(self.trainer, windows_from, epoch)

    def validate(self, batches_of: BatchesOf, epoch: int) -> Evaluation:
        return self.policy.validate(self.trainer, batches_of, epoch)


def retrying(
    model: nn.Module,
    micro_batch: int,
    *,
    precision: Precision = "fp32",
    even: bool = False,
    smallest: int = 1,
    eval_batch: int = 8,
) -> Retrying:
    correct_momentum(model, EFFECTIVE_BATCH / micro_batch)
    lr = torch.zeros(())
    step = WindowStep(
        model,
        build_optimizer(model, "adamw", lr, weight_decay=0.01),
        gradient_scaler(precision, CPU, 1024.0),
        lr=lr,
        peak_lr=1e-2,
        lr_factors=torch.ones(100),
        clipping=Clipping("norm", 0.5),
        precision=precision,
        loss=CrossEntropy(torch.tensor([1.0, 0.5, 2.0]), label_smoothing=0.1),
        average=None,
        log=UpdateLog(10, CPU),
    )
    policy = OutOfMemoryPolicy(EFFECTIVE_BATCH, micro_batch, eval_batch, even=even, smallest=lambda: smallest)
    return Retrying(Trainer(step, CLASSES, None), policy)


def windows_from(micro_batch: int, first_window: int, mixing: Mixing | None = None) -> Generator[Window]:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (SAMPLES, SIDE + 2, SIDE + 2, 3), dtype=torch.uint8, generator=generator)
    labels_N = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    settings = WindowSettings(EFFECTIVE_BATCH, micro_batch, "moderate", mixing, seed=5)
    return training_windows(ImageFeed(pictures, CPU), labels_N, torch.arange(SAMPLES), settings, 0, SIDE, first_window)


def trained(run: Retrying, mixing: Mixing | None = None) -> dict[str, Tensor]:
    """Trains an epoch from a fixed random state and returns the weights and statistics."""
    torch.manual_seed(11)
    done = run.train_epoch(partial(windows_from, mixing=mixing), 1)
    assert done.images == SAMPLES
    model = run.trainer.step.model
    state = (model.network if isinstance(model, Failing) else model).state_dict()
    return {"train_loss": torch.tensor(done.updates.train_loss), **state}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(
            actual[name], value, rtol=1e-6, atol=1e-6, msg=lambda message, name=name: f"{name}: {message}"
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", OUT_OF_MEMORY, ids=lambda error: f"{type(error).__name__} {str(error)[:45]}".splitlines()[0]
)
def test_a_window_that_runs_out_of_memory_is_trained_in_halves_as_if_it_had_been_from_the_start(
    error: Exception,
) -> None:
    expected = trained(retrying(network(), micro_batch=8))
    run = retrying(Failing(network(), {1: error}), micro_batch=16)
    assert_same(trained(run), expected)
    assert run.policy.micro_batch == 8
    assert run.policy.retries == [OutOfMemoryRetry(1, "training", 16, 8, str(error).splitlines()[0])]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("call", [0, 1, 2])
def test_dropout_and_batch_norm_are_set_back_to_the_windows_start(call: int, precision: Precision) -> None:
    expected = trained(retrying(network(batch_norm=True, dropout=0.5), micro_batch=4, precision=precision))
    run = retrying(
        Failing(network(batch_norm=True, dropout=0.5), {call: OUT_OF_MEMORY[0], call + 1: OUT_OF_MEMORY[0]}),
        16,
        precision=precision,
    )
    if call == 0:
        assert_same(trained(run), expected)
    else:  # the windows before were trained with the statistics of larger micro-batches
        trained(run)
    assert run.policy.micro_batch == 4
    assert [step.after for step in run.policy.retries] == [8, 4]
    assert run.trainer.step.model.network[1].momentum == pytest.approx(1 - 0.9 ** (1 / 4))


def test_going_back_leaves_no_trace_of_the_micro_steps() -> None:
    model = network(batch_norm=True, dropout=0.5)
    step = retrying(model, 4, precision="fp16").trainer.step
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    step.remember()
    windows, again = windows_from(4, 0), windows_from(4, 0)
    for batch in next(windows).micro_batches:
        step.micro_step(batch.images(), batch.targets, torch.tensor(16.0))
    step.scaler.unscale_(step.optimizer)
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    step.go_back()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.rand(3), drawn)
    step.train_window(next(again))  # the scaler does not refuse to unscale again
    assert int(step.updates) == 1


def test_the_micro_batch_stays_low_and_earlier_windows_are_not_trained_again() -> None:
    expected = trained(retrying(network(), micro_batch=8))
    run = retrying(Failing(network(), {1: OUT_OF_MEMORY[0]}), micro_batch=16)
    assert_same(trained(run), expected)
    calls = run.trainer.step.model.calls
    assert calls == 1 + 1 + 2 + 1  # 16 | 16 fails | 8 + 8 | the ragged 8
    assert int(run.trainer.step.updates) == 3


def test_mixed_neighbours_are_never_parted() -> None:
    mixing = Mixing(0.4, 1.0)
    expected = trained(retrying(network(), micro_batch=2, even=True), mixing)
    run = retrying(Failing(network(), {0: OUT_OF_MEMORY[0]}), micro_batch=6, even=True)
    assert_same(trained(run, mixing), expected)
    assert [(step.before, step.after) for step in run.policy.retries] == [(6, 2)]  # 3 would part a pair


def test_after_two_retries_the_trial_is_given_up() -> None:
    run = retrying(Failing(network(), Endless()), micro_batch=16)
    with pytest.raises(
        OutOfMemory, match="out of memory with micro-batches of 4, after 2 retries with fewer: CUDA out of memory"
    ):
        trained(run)
    assert [(step.before, step.after) for step in run.policy.retries] == [(16, 8), (8, 4)]


def test_retries_of_an_evaluation_are_not_counted_to_those_of_training() -> None:
    run = retrying(Failing(network(), Endless()), micro_batch=16)
    run.policy.retries.append(OutOfMemoryRetry(1, "evaluation", 16, 8, "CUDA out of memory"))
    with pytest.raises(OutOfMemory, match="out of memory with micro-batches of 4, after 2 retries with fewer"):
        trained(run)


def test_a_single_image_cannot_be_halved() -> None:
    with pytest.raises(OutOfMemory, match="with micro-batches of 1, after 0 retries with fewer"):
        trained(retrying(Failing(network(), Endless()), micro_batch=1))
    with pytest.raises(OutOfMemory, match="with micro-batches of 2, after 0 retries with fewer"):
        trained(retrying(Failing(network(), Endless()), micro_batch=2, even=True), Mixing(0.2))


def test_where_single_images_cannot_be_trained_on_two_are_the_fewest() -> None:
    expected = trained(retrying(network(), micro_batch=2))
    run = retrying(Failing(network(), {0: OUT_OF_MEMORY[0]}), micro_batch=3, smallest=2)
    assert_same(trained(run), expected)
    assert [(step.before, step.after) for step in run.policy.retries] == [(3, 2)]
    with pytest.raises(OutOfMemory, match="with micro-batches of 2, after 0 retries with fewer"):
        trained(retrying(Failing(network(), Endless()), micro_batch=2, smallest=2))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("CUDA out of memory"),
        DivergedError("a gradient", 1, 2, 3.0),
    ],
    ids=["another error", "not PyTorch's", "our own"],
)
def test_other_errors_are_not_taken_for_memory(error: Exception) -> None:
    run = retrying(Failing(network(), {1: error}), micro_batch=8)
    with pytest.raises(type(error)):
        trained(run)
    assert run.policy.retries == []


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: uncorrectable NVLink error detected during the execution"),
        RuntimeError("CUDA error: the launch timed out and was terminated"),
        torch.AcceleratorError("CUDA error: unknown error"),
    ],
    ids=lambda error: f"{type(error).__name__}: {error}",
)
def test_a_dead_context_is_not_tried_again(error: Exception) -> None:
    run = retrying(Failing(network(), {1: error}), micro_batch=8)
    with pytest.raises(DeadContextError, match="takes no more work from this process: CUDA error"), gpu_errors_named():
        trained(run)
    assert run.policy.retries == []


@pytest.mark.parametrize("kind", [torch.AcceleratorError, RuntimeError])
def test_a_failed_assertion_is_the_programs_fault(kind: type[RuntimeError]) -> None:
    error = kind("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported asynchronously")
    assert what_killed_context(error) is error
    with (
        pytest.raises(
            FailedAssertion, match=r"^the program failed on the GPU: CUDA error: device-side assert triggered$"
        ),
        gpu_errors_named(),
    ):
        raise error


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: invalid argument",
        "CUDA error: invalid configuration argument",
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA error: operation not permitted when stream is capturing",
        "CUDA error: invalid device ordinal",
    ],
)
def test_an_error_of_cuda_after_which_the_process_can_go_on_stays_what_it_is(text: str) -> None:
    assert what_killed_context(torch.AcceleratorError(text)) is None
    with pytest.raises(torch.AcceleratorError, match=text), gpu_errors_named():
        raise torch.AcceleratorError(text)


def test_memory_that_runs_out_where_nothing_can_be_made_smaller_ends_the_trial() -> None:
    with pytest.raises(OutOfMemory, match="outside of an update: CUDA out of memory"), gpu_errors_named():
        raise OUT_OF_MEMORY[1]


@pytest.mark.slow
def test_an_evaluation_that_runs_out_of_memory_takes_smaller_batches_and_says_the_same() -> None:
    pictures = torch.randint(256, (20, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels_N = torch.arange(20) % CLASSES

    def batches_of(size: int) -> Iterator[EvaluationBatch]:
        return evaluation_batches(ImageFeed(pictures, CPU), labels_N, torch.arange(20), size, SIDE)

    expected = retrying(network(), 8).validate(batches_of, 1)
    run = retrying(Failing(network(), {0: OUT_OF_MEMORY[0], 2: OUT_OF_MEMORY[3]}), 8)
    evaluation = run.validate(batches_of, 4)
    assert torch.equal(evaluation.confusion_KK, expected.confusion_KK)
    assert evaluation.loss == pytest.approx(expected.loss, rel=1e-6)
    assert [(step.epoch, step.part, step.before, step.after) for step in run.policy.retries] == [
        (4, "evaluation", 8, 4),
        (4, "evaluation", 4, 2),
    ]
    assert run.policy.micro_batch == 8
    with pytest.raises(OutOfMemory, match="evaluating a single image"):
        retrying(Failing(network(), Endless()), 8).validate(batches_of, 1)


def test_a_new_trainer_is_adapted_to_where_the_trial_stands() -> None:
    run = retrying(Failing(network(batch_norm=True), {0: OUT_OF_MEMORY[0]}), micro_batch=16)
    trained(run)
    again = retrying(network(batch_norm=True), micro_batch=16)
    again.policy.load_state(run.policy.state())
    again.policy.adapt(again.trainer)
    assert again.now == (8, 8)
    assert again.policy.retries == run.policy.retries
    assert again.trainer.step.model[1].momentum == pytest.approx(1 - 0.9 ** (1 / 2))
