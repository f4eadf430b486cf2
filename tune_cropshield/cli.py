"""argv -> one call.

Heavy imports happen inside the commands; errors become exit codes: 2 the input is at fault, 1 it failed, 130
interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from tune_cropshield import __version__
from tune_cropshield.config.registry import SAMPLERS
from tune_cropshield.errors import RunFailure, UserError
from tune_cropshield.files import is_disk_full, printable
from tune_cropshield.signals import on_ending_signal
from tune_cropshield.streams import failure_of_output, outlast_readers

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit codes; 0: done


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of every command. A default of None means "as the file says"."""
    parser = _Parser(
        prog="tune-cropshield",
        description=(
            "Give it one folder of leaf photographs per disease and your GPU's memory: it finds the training settings "
            "with the best validation accuracy."
        ),
        epilog=(
            "COMMAND --help tells more. Without arguments of its own, search makes a small synthetic data set and runs "
            "on any machine."
        ),
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    search = commands.add_parser(
        "search",
        help="search for the best setting",
        description="Searches for the best setting and writes it to OUT/best.",
    )
    search.add_argument(
        "--data",
        type=_path,
        metavar="DIR",
        help="one sub-folder of photographs per class; left out, a synthetic data set",
    )
    search.add_argument(
        "--space",
        metavar="FILE.toml",
        help="search space: a path, or the name of a shipped one (default: demo.toml, or the one named after --model)",
    )
    search.add_argument("--model", metavar="NAME", help="network, instead of the space's")
    search.add_argument(
        "--image-size", type=_whole_number, metavar="PX", help="side of the training images, instead of the space's"
    )
    search.add_argument("--vram", metavar="8GB|auto", help="GPU memory budget; auto takes what is free")
    search.add_argument(
        "--trials",
        type=_whole_number,
        metavar="N",
        help="trials in all; with --resume, more than before extends the search",
    )
    search.add_argument("--epochs", type=_whole_number, metavar="N", help="epochs of a trial that is never pruned")
    search.add_argument("--time-budget", metavar="2h", help="for everything, report included; --resume goes on")
    search.add_argument(
        "--finish",
        action=argparse.BooleanOptionalAction,
        help="train the winner on after the trials, in the rest of the time budget or 4 times as long as a trial "
        "(default: with a time budget)",
    )
    search.add_argument("--out", type=_path, metavar="DIR", help="the search's folder (default: results/runs/NAME)")
    search.add_argument("--seed", type=_whole_number, metavar="N", help="seed of the sampler and of every trial")
    search.add_argument("--device", choices=("auto", "cpu", "cuda"), help="what to train on")
    search.add_argument(
        "--trials-per-gpu",
        type=_count_or_auto,
        metavar="N|auto",
        help="trials at once on each GPU (on the CPU, when there is none)",
    )
    search.add_argument("--resume", action="store_true", help="go on with the search in --out")
    search.add_argument(
        "--dry-run",
        action="store_true",
        help="print the space, the pairs, the pruning steps and the worst case, and stop",
    )
    search.add_argument(
        "--sampler",
        metavar="NAME",
        help=f"what proposes the settings: {', '.join(SAMPLERS)}, or your own as FILE.py:NAME",
    )
    search.add_argument(
        "--stop-when-flat",
        action=argparse.BooleanOptionalAction,
        help="end when more trials are not expected to gain more than the noise of the validation accuracy",
    )
    search.add_argument(
        "--learn-from",
        type=_path,
        nargs="+",
        metavar="DIR",
        help="earlier searches to learn from (default: those of the same network and optimizer in results/runs and "
        "beside --out)",
    )
    search.add_argument(
        "--baseline",
        action=argparse.BooleanOptionalAction,
        help="try the reference setting as trial 0, trained to its end, to measure the gain against it (default)",
    )
    search.add_argument("--from-scratch", action="store_true", default=None, help="learn from no earlier search")
    search.add_argument("--ray-address", metavar="ADDR", help="join a running Ray cluster that shares the folders")

    shown = search.add_mutually_exclusive_group()
    shown.add_argument("--quiet", action="store_true", help="print only the result")
    shown.add_argument(
        "--json-lines", action="store_true", help="print one JSON object per event on stdout, for programs"
    )

    plan = commands.add_parser(
        "plan",
        help="say which batches fit a GPU's memory",
        description=(
            "Prints which micro-batch x accumulation make which effective batch within a GPU memory budget, and "
            "how fast each is."
        ),
    )
    plan.add_argument("--model", default="efficientnet_b0", metavar="NAME", help="network (default: %(default)s)")
    plan.add_argument(
        "--image-size",
        type=_whole_number,
        default=224,
        metavar="PX",
        help="side of the training images (default: %(default)s)",
    )
    plan.add_argument(
        "--vram",
        default="8GB",
        metavar="8GB|auto",
        help="budget: an amount, rtx4060-laptop, rtx3050-laptop, or auto for what is free",
    )
    plan.add_argument("--precision", choices=("fp16", "bf16", "fp32"), default="fp16", help="(default: %(default)s)")
    plan.add_argument("--effective-batch", type=_whole_number, metavar="N", help="only this one")
    plan.add_argument("--micro-batch", type=_whole_number, metavar="N", help="only this one, whether it fits or not")
    plan.add_argument("--estimate", action="store_true", help="do not touch a GPU")
    plan.add_argument("--json", action="store_true", help="print one object, for programs")

    train = commands.add_parser(
        "train", help="train one configuration", description="Trains the network of a config.toml to its end."
    )
    train.add_argument(
        "--config", type=_path, required=True, metavar="FILE.toml", help="for example OUT/best/config.toml"
    )
    train.add_argument("--data", type=_path, metavar="DIR", help="photographs, instead of the configuration's")
    train.add_argument("--epochs", type=_whole_number, metavar="N", help="epochs, instead of the configuration's")
    train.add_argument(
        "--time", metavar="20m", help="train for this time, on all cores: the number of epochs is fitted to it"
    )
    train.add_argument(
        "--early-stopping", type=_whole_number, metavar="N", help="stop after so many epochs without a better val_acc"
    )
    train.add_argument(
        "--out", type=_path, metavar="DIR", help="folder for its files (default: results/runs/train-TIME)"
    )
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    train.add_argument(
        "--profile", action="store_true", help="write a trace of the second epoch and print where its time goes"
    )
    train.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="what to train on")

    evaluate = commands.add_parser(
        "evaluate", help="evaluate a trained network", description="Prints accuracy, macro F1 and a table of classes."
    )
    evaluate.add_argument(
        "run_dir", type=_path, metavar="RUN_DIR", help="a folder with config.toml and model.safetensors, like OUT/best"
    )
    evaluate.add_argument(
        "--data",
        type=_path,
        metavar="DIR",
        help="photographs to judge it on, one sub-folder per class (default: those it was trained on)",
    )
    evaluate.add_argument(
        "--split",
        choices=("val", "test", "all"),
        help=(
            "val, test: its own validation or test photographs (test is meant to be read once, for the winner); all: "
            "the whole folder (default: val for the folder that it was trained on, all for another one)"
        ),
    )
    evaluate.add_argument(
        "--to",
        type=_path,
        metavar="DIR",
        help="folder for the confusion matrix and the predictions, .csv and .png (default: RUN_DIR)",
    )
    evaluate.add_argument("--json", action="store_true", help="print one object, for programs")

    predict = commands.add_parser(
        "predict", help="classify photographs", description="Prints each photograph's class and probability."
    )
    predict.add_argument(
        "run_dir", type=_path, metavar="RUN_DIR", help="a folder with config.toml and model.safetensors, like OUT/best"
    )
    predict.add_argument("images", type=_path, nargs="+", metavar="IMAGE", help="photographs, or folders of them")
    printed = predict.add_mutually_exclusive_group()
    printed.add_argument(
        "--json", action="store_true", help="print one list, with every class's probability, for programs"
    )
    printed.add_argument("--csv", action="store_true", help="print a table: photograph, predicted, probability, error")

    export = commands.add_parser(
        "export", help="write the best setting for another program", description="Writes the best trial of a search."
    )
    export.add_argument(
        "search_dir", type=_path, metavar="SEARCH_DIR", help="a search's folder, or that of a training (train --out)"
    )
    export.add_argument(
        "--to",
        type=_path,
        metavar="DIR",
        help="folder to write to; left out, onnx goes beside the weights, the rest is printed",
    )
    export.add_argument(
        "--format",
        choices=("toml", "json", "command", "onnx"),
        default="toml",
        help=(
            "command: the call of the reference train.py; onnx: the network itself, checked against PyTorch "
            "(default: %(default)s)"
        ),
    )

    confirm = commands.add_parser(
        "confirm",
        help="say whether a search's win is more than seed noise",
        description=(
            "Trains the best trials and the reference setting again over several seeds, and tests whether the win is "
            "more than seed noise."
        ),
    )
    confirm.add_argument(
        "search_dir", type=_path, metavar="SEARCH_DIR", help="the same command goes on where it was stopped"
    )
    confirm.add_argument(
        "--top", type=_whole_number, default=3, metavar="N", help="best trials to train again (default: %(default)s)"
    )
    confirm.add_argument(
        "--seeds", type=_whole_number, default=3, metavar="N", help="seeds for each, new ones (default: %(default)s)"
    )
    confirm.add_argument("--data", type=_path, metavar="DIR", help="the photographs, where they have moved")
    confirm.add_argument("--device", choices=("auto", "cpu", "cuda"), help="what to train on, instead of the search's")

    doctor = commands.add_parser(
        "doctor",
        help="check the machine, the photographs and published rules of thumb",
        description="Examines the machine and the photographs, and checks published rules of thumb on this device.",
    )
    doctor.add_argument(
        "--data",
        type=_path,
        metavar="DIR",
        help="one sub-folder of photographs per class; left out, that of the file, or a synthetic data set",
    )
    doctor.add_argument(
        "--config", type=_path, metavar="FILE.toml", help="read the photographs as its [data] says, as train does"
    )
    doctor.add_argument("--space", metavar="FILE.toml", help="the same with a search space, as search does")
    doctor.add_argument(
        "--model",
        metavar="NAME",
        help="network to measure with (default: cropshield_cnn, and on a GPU efficientnet_b0 too)",
    )
    doctor.add_argument("--script", type=_moved("check-script"), help=argparse.SUPPRESS)
    doctor.add_argument("--json", action="store_true", help="print one object, for programs")

    check = commands.add_parser(
        "check-script",
        help="read training scripts for known mistakes",
        description="Reads training scripts and notebooks, without running them, for known mistakes of PyTorch "
        "training loops, and says what it could not judge.",
    )
    check.add_argument(
        "scripts",
        type=_path,
        nargs="+",
        metavar="FILE|DIR",
        help="train.py, a notebook, or a folder: all scripts and notebooks in it",
    )
    check.add_argument("--json", action="store_true", help="print one list, for programs")

    report = commands.add_parser(
        "report", help="write a search's report.html", description="Writes SEARCH_DIR/report.html, which opens offline."
    )
    report.add_argument(
        "search_dir", type=_path, metavar="SEARCH_DIR", help="also of a search that is running or was interrupted"
    )

    sample = commands.add_parser(
        "sample-data",
        help="make a synthetic data set",
        description="Makes pictures of leaves with diseases, one folder per class.",
    )
    sample.add_argument("dir", type=_path, metavar="DIR")
    sample.add_argument("--classes", type=_whole_number, default=6, metavar="N")
    sample.add_argument("--per-class", type=_whole_number, default=80, metavar="N")
    sample.add_argument("--image-size", type=_whole_number, default=96, metavar="PX")
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the commands do, instead of printing all of the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {' '.join(message.split())} ({self.prog} --help tells more)\n")


def _path(text: str) -> Path:
    """Returns a path that the system can look at, whether anything is there or not; ~ is the home folder.

    A shell leaves the ~ in --data=~/leaves alone.
    """
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    path = Path(os.path.expanduser(text))
    try:
        path.exists()
    except OSError as error:  # no permission to look, or a name that is too long
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    return path


def _moved(command: str) -> Callable[[str], NoReturn]:
    """Returns the type of a flag that is a command of its own now: any value is answered with that command."""

    def refuse(text: str) -> NoReturn:
        raise argparse.ArgumentTypeError(f"is a command of its own now: {command} {text}")

    return refuse


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, but got {text!r}") from None


def _count_or_auto(text: str) -> int | str:
    """Returns a number as such; what else is allowed is the space's business."""
    try:
        return int(text)
    except ValueError:
        return text


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command in `argv` (the process's own when None) and returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file's name need not be writable in the terminal's encoding.
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
    args.argv = list(sys.argv[1:] if argv is None else argv)
    try:
        with on_ending_signal(_interrupt):  # so that everything that was opened is closed
            command = importlib.import_module(f"tune_cropshield.commands.{args.command.replace('-', '_')}")
            return int(command.run(args))
    except UserError as error:
        return _complain(str(error), BAD_INPUT)
    except RunFailure as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except Exception as error:
        if is_disk_full(error):
            return _complain(f"no space left on the disk: {error}", BAD_INPUT)
        traceback.print_exc()
        return _complain("this is a fault of tune_cropshield: please report it with the lines above", FAILED)


def run() -> NoReturn:
    """Runs the process's own command and ends the process with its exit code.

    It ends at once: to take PyTorch, Ray and the like apart takes a second.
    """
    outlast_readers()
    code = main()
    if (error := failure_of_output()) is not None:
        code = _complain(
            f"what was said could not be written: {error.strerror}", BAD_INPUT if is_disk_full(error) else FAILED
        )
    sys.stderr.flush()
    os._exit(code)


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def _complain(message: str, code: int) -> int:
    for line in message.split("\n"):
        print(f"error: {printable(line)}", file=sys.stderr)
    return code
