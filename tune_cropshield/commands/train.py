"""`train`: one configuration to its end."""

from __future__ import annotations

import argparse

from tune_cropshield.commands import arguments

HELP = "train one network"
DESCRIPTION = "Trains one network with the settings of a config.toml."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    parser.add_argument(
        "--config",
        type=arguments.path,
        required=True,
        metavar="FILE.toml",
        help="settings, for example OUT/best/config.toml",
    )
    arguments.add_photographs(parser, "that of the file")
    parser.add_argument(
        "--epochs", type=arguments.whole_number, metavar="N", help="number of epochs (default: that of the file)"
    )
    parser.add_argument(
        "--time", metavar="20m", help="train for this time on all CPU cores, with as many epochs as fit"
    )
    parser.add_argument(
        "--early-stopping",
        type=arguments.whole_number,
        metavar="N",
        help="stop after so many epochs without a better --metric",
    )
    parser.add_argument("--metric", metavar="NAME", help=arguments.METRIC)
    parser.add_argument(
        "--out", type=arguments.path, metavar="DIR", help="folder for the results (default: results/runs/train-TIME)"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the training in --out, or else the last one in results/runs with the same settings",
    )
    parser.add_argument(
        "--profile", action="store_true", help="write a trace of the second epoch and print where its time goes"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="what to train on")


def run(args: argparse.Namespace) -> int:
    """Trains the network of --config and writes its files to --out."""
    from tune_cropshield.api.train import train

    train(
        args.config,
        **arguments.photographs(args),
        epochs=args.epochs,
        time=args.time,
        early_stopping=args.early_stopping,
        metric=args.metric,
        out=args.out,
        resume=args.resume,
        profile=args.profile,
        device=args.device,
    )
    return 0
