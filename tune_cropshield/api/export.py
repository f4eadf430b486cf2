"""`export`: the best setting of a search, or its network, for another program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tune_cropshield.api.arguments import AnyPath, check_choice, path_of
from tune_cropshield.api.names import search_named
from tune_cropshield.errors import UserError
from tune_cropshield.files import check_can_be_made, write_text_atomically

FORMATS = ("toml", "json", "command", "onnx")


@dataclass(frozen=True)
class ExportResult:
    """What was exported.

    text: the settings; None for a network. path: the file that was written; None where nothing was.
    max_logit_difference: of a network, the largest difference between its logits and PyTorch's on photographs.
    remarks: what else must be said of it.
    """

    text: str | None
    path: Path | None
    max_logit_difference: float | None = None
    remarks: tuple[str, ...] = ()


def export(
    search_dir: AnyPath,
    *,
    format: Literal["toml", "json", "command", "onnx"] = "toml",
    to: AnyPath | None = None,
) -> ExportResult:
    """Returns the best trial's settings as text, or writes them; a network is always written.

    Args:
        search_dir: A search's folder, or that of a training; or the name of either in results/runs.
        format: "toml" and "json" are the configuration, "command" is the nearest call of the reference train.py,
            "onnx" is the network itself, checked against PyTorch.
        to: The folder to write to; left out, model.onnx goes beside the weights, and settings are only returned.

    Raises:
        UserError: The folder holds no result, is damaged, or `to` cannot be written to.
        RunFailure: The ONNX network does not agree with PyTorch's.
    """
    from tune_cropshield.outcome.export import best_run, exported

    search_dir = search_named(search_dir)
    check_choice("--format", format, FORMATS)
    folder = path_of(to, "--to") if to is not None else None
    if folder is not None:
        check_can_be_made(folder, "--to")
    run_dir = best_run(search_dir)
    if format == "onnx":
        return _export_network(run_dir, folder or run_dir)
    name, text = exported(run_dir, format)
    if folder is None:
        return ExportResult(text, None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(folder / name, text)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return ExportResult(text, folder / name)


def _export_network(run_dir: Path, folder: Path) -> ExportResult:
    """Writes folder/model.onnx."""
    from tune_cropshield.outcome.trained import earlier_preparation, read_run

    check_can_be_made(folder, "--to")
    read_run(run_dir)  # a damaged run is told about before seconds of imports
    from tune_cropshield.outcome.onnx import ONNX_FILE, write_onnx

    try:
        difference = write_onnx(run_dir, folder / ONNX_FILE)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return ExportResult(None, folder / ONNX_FILE, difference, tuple(earlier_preparation(run_dir)))


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder} cannot be written to ({error.strerror})")
