"""`export`: the best setting of a search, or its network, for another program."""

from __future__ import annotations

import argparse
import sys

from tune_cropshield.commands import arguments

HELP = "write the best setting for another program"
DESCRIPTION = "Writes the best trial of a search."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    parser.add_argument(
        "search_dir",
        type=arguments.path,
        metavar="SEARCH_DIR",
        help="a search's folder, or that of a training (train --out); or its name in results/runs",
    )
    parser.add_argument(
        "--to",
        type=arguments.path,
        metavar="DIR",
        help="folder to write to; left out, onnx goes beside the weights, the rest is printed",
    )
    parser.add_argument(
        "--format",
        choices=("toml", "json", "command", "onnx"),
        default="toml",
        help=(
            "command: the call of the reference train.py; onnx: the network itself, checked against PyTorch "
            "(default: %(default)s)"
        ),
    )


def run(args: argparse.Namespace) -> int:
    """Prints the best trial's settings, or the path of the file that was written."""
    from tune_cropshield.api.export import export

    done = export(args.search_dir, format=args.format, to=args.to)
    if done.path is None:
        print(done.text, end="")
        return 0
    print(done.path)
    if done.max_logit_difference is not None:
        print(
            f"logits differ from PyTorch's by at most {done.max_logit_difference:.1e}; the file's metadata name the "
            "input and the classes"
        )
    for remark in done.remarks:
        print(remark, file=sys.stderr)
    return 0
