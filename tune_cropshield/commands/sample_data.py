"""`sample-data`: a synthetic data set."""

from __future__ import annotations

import argparse

from tune_cropshield.commands import arguments
from tune_cropshield.files import printable

HELP = "make a synthetic data set"
DESCRIPTION = "Makes synthetic pictures of diseased leaves, in one folder per class."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    parser.add_argument("dir", type=arguments.path, metavar="DIR")
    parser.add_argument("--classes", type=arguments.whole_number, default=6, metavar="N")
    parser.add_argument("--per-class", type=arguments.whole_number, default=80, metavar="N")
    parser.add_argument("--image-size", type=arguments.whole_number, default=96, metavar="PX")
    parser.add_argument(
        "--views", type=arguments.whole_number, default=1, metavar="N", help="photographs of each leaf (default: 1)"
    )


def run(args: argparse.Namespace) -> int:
    """Draws the leaves and says where they are."""
    from tune_cropshield.data.generated import draw_leaves

    draw_leaves(args.dir, args.classes, args.per_class, args.image_size, views=args.views)
    drawn = f"{args.classes} classes of {args.per_class} synthetic photographs, {args.image_size} px"
    print(f"{drawn}, in {printable(args.dir)}")
    return 0
