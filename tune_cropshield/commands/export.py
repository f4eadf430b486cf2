"""`export`: the best setting of a search, or its network, for another program."""

from __future__ import annotations

import argparse
import sys

from tune_cropshield.commands import arguments
from tune_cropshield.files import printable

HELP = "write the best settings or the network for another program"
DESCRIPTION = "Writes the settings or the network of a search's best trial, for other programs."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    parser.add_argument(
        "search_dir",
        type=arguments.path,
        metavar="SEARCH_DIR",
        help="folder of a search or of a training (train --out), or its name in results/runs",
    )
    parser.add_argument(
        "--to",
        type=arguments.path,
        metavar="DIR",
        help="folder to write to (default: onnx is written next to the weights, other formats are printed)",
    )
    parser.add_argument(
        "--format",
        choices=("toml", "json", "command", "onnx"),
        default="toml",
        help=(
            "toml, json: the settings; command: the nearest command of CropShield's train.py; onnx: the network, "
            "checked against PyTorch (default: %(default)s)"
        ),
    )


def run(args: argparse.Namespace) -> int:
    """Prints the best trial's settings, or the path of the file that was written."""
    from tune_cropshield.api.export import export

    done = export(args.search_dir, format=args.format, to=args.to)
    if done.path is None:
        print(done.text, end="")
        return 0
    print(printable(done.path))
    if done.max_logit_difference is not None:
        print(
            f"logits differ from PyTorch's by at most {done.max_logit_difference:.1e}; the file's metadata describe "
            "the input and the classes"
        )
    for remark in done.remarks:
        print(printable(remark), file=sys.stderr)
    return 0
