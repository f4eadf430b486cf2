"""`train`: one configuration to its end."""

from __future__ import annotations

import argparse


def run(args: argparse.Namespace) -> int:
    """Trains the network of --config and writes its files to --out."""
    from tune_cropshield.api.train import train

    train(
        args.config,
        data=args.data,
        epochs=args.epochs,
        time=args.time,
        early_stopping=args.early_stopping,
        out=args.out,
        resume=args.resume,
        profile=args.profile,
        device=args.device,
    )
    return 0
