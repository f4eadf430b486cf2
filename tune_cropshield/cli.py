"""argv -> one call. Heavy imports happen inside the commands; errors become exit codes: 2 the input is at fault, 1 it failed, 130 interrupted."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from tune_cropshield import __version__
from tune_cropshield.errors import RunFailure, UserError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of every command. A default of None means "as the file says"."""
    parser = argparse.ArgumentParser(
        prog="tune-cropshield",
        description="Finds the learning rate, clipping norm and batch/accumulation pair that train a leaf classifier best within a GPU's memory.",
        epilog="COMMAND --help tells more. Without arguments of its own, search draws leaves and runs on any machine.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    search = commands.add_parser("search", help="search for the best setting", description="Searches for the best setting and writes it to OUT/best.")
    search.add_argument("--data", type=Path, metavar="DIR", help="one sub-folder of photographs per class; left out, leaves are drawn")
    search.add_argument(
        "--space",
        metavar="FILE.toml",
        help="search space: a path, or the name of a shipped one (default: demo.toml, or the one named after --model)",
    )
    search.add_argument("--model", metavar="NAME", help="network, instead of the space's")
    search.add_argument("--image-size", type=int, metavar="PX", help="side of the training images, instead of the space's")
    search.add_argument("--vram", metavar="8GB|auto", help="GPU memory budget; auto takes what is free")
    search.add_argument("--trials", type=int, metavar="N", help="trials in all; with --resume, more than before extends the search")
    search.add_argument("--epochs", type=int, metavar="N", help="epochs of a trial that is never pruned")
    search.add_argument("--time-budget", metavar="2h", help="stop after this time; --resume goes on")
    search.add_argument("--out", type=Path, metavar="DIR", help="the search's folder (default: results/runs/NAME)")
    search.add_argument("--seed", type=int, metavar="N", help="seed of the sampler and of every trial")
    search.add_argument("--device", choices=("auto", "cpu", "cuda"), help="what to train on")
    search.add_argument("--trials-per-gpu", metavar="N|auto", help="trials at once on each GPU (on the CPU, when there is none)")
    search.add_argument("--resume", action="store_true", help="go on with the search in --out")
    search.add_argument("--dry-run", action="store_true", help="print the space, the pairs, the rungs and the worst case, and stop")
    search.add_argument("--sampler", choices=("tpe", "random", "gp"), help="what proposes the settings")
    search.add_argument("--ray-address", metavar="ADDR", help="join a running Ray cluster that shares the folders")

    train = commands.add_parser("train", help="train one configuration", description="Trains the network of a config.toml to its end.")
    train.add_argument("--config", type=Path, required=True, metavar="FILE.toml", help="for example OUT/best/config.toml")
    train.add_argument("--data", type=Path, metavar="DIR", help="photographs, instead of the configuration's")
    train.add_argument("--epochs", type=int, metavar="N", help="epochs, instead of the configuration's")
    train.add_argument("--out", type=Path, metavar="DIR", help="folder for its files (default: results/runs/train-TIME)")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    train.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="what to train on")

    evaluate = commands.add_parser("evaluate", help="judge a trained network", description="Prints accuracy, macro F1 and a table of classes.")
    evaluate.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a folder with config.toml and model.safetensors, like OUT/best")
    evaluate.add_argument("--data", type=Path, metavar="DIR", help="photographs, instead of the configuration's")
    evaluate.add_argument("--split", choices=("val", "test"), default="val", help="test is meant to be read once, for the winner")

    predict = commands.add_parser("predict", help="classify photographs", description="Prints each photograph's class and probability.")
    predict.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a folder with config.toml and model.safetensors, like OUT/best")
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="photographs, or folders of them")

    export = commands.add_parser("export", help="write the best setting for another program", description="Writes the best trial of a search.")
    export.add_argument("search_dir", type=Path, metavar="SEARCH_DIR")
    export.add_argument("--to", type=Path, metavar="DIR", help="folder to write to; left out, toml, json and command are printed")
    export.add_argument("--format", choices=("toml", "json", "command"), default="toml", help="command: the call of the guide's train.py")

    sample = commands.add_parser("sample-data", help="draw a leaf data set", description="Draws leaves with diseases, one folder per class.")
    sample.add_argument("dir", type=Path, metavar="DIR")
    sample.add_argument("--classes", type=int, default=6, metavar="N")
    sample.add_argument("--per-class", type=int, default=80, metavar="N")
    sample.add_argument("--image-size", type=int, default=96, metavar="PX")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command in `argv` (the process's own when None) and returns its exit code."""
    args = build_parser().parse_args(argv)
    args.argv = list(sys.argv[1:] if argv is None else argv)
    command = importlib.import_module(f"tune_cropshield.commands.{args.command.replace('-', '_')}")
    try:
        return int(command.run(args))
    except UserError as error:
        return _complain(str(error), BAD_INPUT)
    except RunFailure as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone: nothing to say to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception:
        traceback.print_exc()
        return _complain("this is a fault of tune_cropshield: please report it with the lines above", FAILED)


def _complain(message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return code
