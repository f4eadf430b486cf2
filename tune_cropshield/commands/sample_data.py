"""`sample-data`: a synthetic data set."""

from __future__ import annotations

import argparse


def run(args: argparse.Namespace) -> int:
    """Draws the leaves and says where they are."""
    from tune_cropshield.data.generated import draw_leaves

    draw_leaves(args.dir, args.classes, args.per_class, args.image_size)
    print(f"{args.classes} classes of {args.per_class} synthetic photographs, {args.image_size} px, in {args.dir}")
    return 0
