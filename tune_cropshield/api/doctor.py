"""`doctor`: the machine, the photographs and published rules of thumb, measured here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tune_cropshield.api.arguments import AnyPath, path_of
from tune_cropshield.config.faults import command_line, validated
from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.data.folder import check_folder
from tune_cropshield.data.generated import generated_leaves
from tune_cropshield.device import find_device, num_cores

if TYPE_CHECKING:  # PyTorch takes seconds to import: faulty arguments are told about before
    from tune_cropshield.doctor.examination import Examination


def examine(
    *, data: AnyPath | None = None, model: str | None = None, tell: Callable[[str], object] = lambda what: None
) -> Examination:
    """Returns what was found out about the machine, the photographs and published rules of thumb on this device.

    Args:
        data: One sub-folder of photographs per class; left out, a small synthetic data set.
        model: The network to measure with; left out, those that the rules speak of.
        tell: Called with what is measured next.

    Raises:
        UserError: The model is not known, or the photographs cannot be trained on.
    """
    if model is not None:
        validated(TrialConfig, {"model": model}, command_line("trial", {"model": model}))
    if data is not None:
        check_folder(path_of(data, "--data"))  # before anything heavy is imported
    root = path_of(data, "--data").absolute() if data is not None else generated_leaves(cache_dir())
    device = find_device("auto")
    import torch

    from tune_cropshield.doctor import examination

    gpu_or_cpu = torch.device("cuda", 0) if device == "cuda" else torch.device("cpu")
    return examination.examine(root, data is None, model, gpu_or_cpu, num_cores(), cache_dir(), tell)
