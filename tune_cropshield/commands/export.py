"""`export`: the best setting of a search, or its network, for another program."""

from __future__ import annotations

import argparse
from pathlib import Path

from tune_cropshield.errors import UserError
from tune_cropshield.files import check_can_be_made


def run(args: argparse.Namespace) -> int:
    """Prints the best trial's settings, or writes them into --to; a network is always written."""
    from tune_cropshield.files import write_text_atomically
    from tune_cropshield.outcome.export import best_run, exported

    if args.to is not None:
        check_can_be_made(args.to, "--to")
    run_dir = best_run(args.search_dir)
    if args.format == "onnx":
        return _export_network(run_dir, args.to or run_dir)
    name, text = exported(run_dir, args.format)
    if args.to is None:
        print(text, end="")
        return 0
    try:
        args.to.mkdir(parents=True, exist_ok=True)
        write_text_atomically(args.to / name, text)
    except OSError as error:
        raise _unwritable(args.to, error) from None
    print(args.to / name)
    return 0


def _export_network(run_dir: Path, folder: Path) -> int:
    """Writes folder/model.onnx and says how close it comes."""
    from tune_cropshield.outcome.trained import read_run

    check_can_be_made(folder, "--to")
    read_run(run_dir)  # a damaged run is told about before seconds of imports
    from tune_cropshield.outcome.onnx import ONNX_FILE, write_onnx

    try:
        difference = write_onnx(run_dir, folder / ONNX_FILE)
    except OSError as error:
        raise _unwritable(folder, error) from None
    print(folder / ONNX_FILE)
    print(
        f"logits differ from PyTorch's by at most {difference:.1e}; the file's metadata name the input and the classes"
    )
    return 0


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"{folder} cannot be written to ({error.strerror})")
