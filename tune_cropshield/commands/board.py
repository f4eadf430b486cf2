"""`board`: the curves of searches in TensorBoard."""

from __future__ import annotations

import argparse
import getpass
import os
import threading
from contextlib import suppress
from urllib.parse import urlsplit

from tune_cropshield.commands import arguments
from tune_cropshield.shell import spelled

HELP = "show the curves in TensorBoard"
DESCRIPTION = "Starts TensorBoard for a search, or for all of them, on this machine's own address, until Ctrl-C."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    parser.add_argument(
        "search_dir",
        type=arguments.path,
        nargs="?",
        metavar="DIR",
        help="a search or a training, or its name in results/runs, or a folder of many (default: results/runs)",
    )
    parser.add_argument(
        "--port",
        type=arguments.whole_number,
        metavar="N",
        help="where it listens (default: the first free port from 6006 on)",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the address, and serves it until Ctrl-C."""
    from tune_cropshield.api.board import board

    address = board(args.search_dir, port=args.port)
    with suppress(KeyboardInterrupt):
        print(f"TensorBoard: {address}   (Ctrl-C ends it)", flush=True)
        if (forward := _forward(address)) is not None:
            print(f"from the computer in front of you, first:  {forward}", flush=True)
        threading.Event().wait()
    return 0


def _forward(address: str) -> str | None:
    """Returns the command that brings the address to a computer which is here by ssh; None where it is this one."""
    connection = os.environ.get("SSH_CONNECTION", "").split()  # client, its port, this machine, its port
    if len(connection) != 4:
        return None
    port, here, ssh_port = urlsplit(address).port, connection[2], connection[3]
    words = ["ssh", "-N", "-L", f"{port}:127.0.0.1:{port}", f"{getpass.getuser()}@{here}"]
    return spelled([*words, *(["-p", ssh_port] if ssh_port != "22" else [])])
