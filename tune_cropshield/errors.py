"""What can go wrong, and whose fault it is.

UserError            the input is at fault: one clear message, exit code 2
├── ConfigError      a configuration or search-space file; holds every fault found in it
├── DataError        the image folder
├── DeviceError      the hardware asked for is not there, or a budget it cannot hold
└── DiskFull         no space is left for what must be written; everything so far is whole
RunFailure           the work itself failed: exit code 1
├── DivergedError    loss, gradients or a metric stopped being finite
├── OutOfMemory      a trial does not fit the memory, not even at a smaller micro-batch
├── DeadContextError the GPU takes no more work from this process: a new one goes on from the last checkpoint
├── FailedAssertion  the same, but the program is at fault: a new process would meet it again
└── EstimateUnavailable the memory of a model cannot be estimated: it has to be measured
"""

from __future__ import annotations

from collections.abc import Sequence


class UserError(ValueError):
    """The user's input is at fault; the message says which rule, which value and where."""


class ConfigError(UserError):
    """Every fault of one file or command line, reported together."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[str, ...]]]:
        return type(self), (self.faults,)  # by itself, an exception is made again from its message


class DataError(UserError):
    """The image folder cannot be trained on."""


class DeviceError(UserError):
    """The device asked for is missing, or too small for what was asked of it."""


class DiskFull(UserError):
    """No space is left on the disk. What was written before is whole, and the work can go on once there is space."""


class RunFailure(RuntimeError):
    """The work failed although the input was fine."""


class OutOfMemory(RunFailure):
    """A trial does not fit the memory it may take, although its micro-batch was lowered."""


class DeadContextError(RunFailure):
    """The GPU refuses all further work of this process.

    Nothing is wrong with the trial: end the process, start it again, resume.
    """


class FailedAssertion(RunFailure):
    """An assertion of the program's failed on the GPU, which takes no more work from this process.

    The trial has failed. End the process before another trial.
    """


class EstimateUnavailable(RunFailure):
    """The memory of this model cannot be estimated: measure it instead.

    Its control flow depends on data, it refuses the image size, or this PyTorch lacks something that tracing needs.
    """


class DivergedError(RunFailure):
    """Training stopped being finite.

    `update` counts applied optimizer updates since the start; `grad_norm` is the last finite gradient norm seen
    (NaN when there was none).
    """

    def __init__(self, what: str, epoch: int, update: int, grad_norm: float) -> None:
        self.what, self.epoch, self.update, self.grad_norm = what, epoch, update, grad_norm
        super().__init__(
            f"{what} stopped being finite in epoch {epoch}, after {update} updates (last finite gradient norm "
            f"{grad_norm:.4g})"
        )

    def __reduce__(self) -> tuple[type[DivergedError], tuple[str, int, int, float]]:
        return type(self), (self.what, self.epoch, self.update, self.grad_norm)
