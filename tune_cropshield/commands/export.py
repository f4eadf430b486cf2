"""`export`: the best setting of a search, or its network, for another program."""

from __future__ import annotations

import argparse
import sys


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
