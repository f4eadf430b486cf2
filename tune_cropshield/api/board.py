"""`board`: the curves of searches in TensorBoard, on this machine's own address."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stderr
from pathlib import Path

from tune_cropshield.api.arguments import AnyPath
from tune_cropshield.api.names import search_named
from tune_cropshield.api.space import RUNS
from tune_cropshield.config.space import SETTINGS
from tune_cropshield.errors import UserError

HOST = "127.0.0.1"  # seen from this machine only: TensorBoard asks nobody for a password


def board(search_dir: AnyPath | None = None, *, port: int | None = None) -> str:
    """Starts TensorBoard in this process, which it ends with, and returns its address.

    Args:
        search_dir: The folder of a search or of a training, or its name in results/runs, or a folder of many; left out,
            results/runs.
        port: Left out, the first free one from 6006 on; 0 takes any free one.

    Raises:
        UserError: The folder holds nothing to show, or the port is taken.
    """
    if port is not None and not (isinstance(port, int) and 0 <= port <= 65535):
        raise UserError(f"--port: must be a whole number from 0 to 65535, but got {port!r}")
    folder = search_named(search_dir, "DIR") if search_dir is not None else RUNS
    _check_shows_something(folder)
    from tensorboard import default
    from tensorboard.program import TensorBoard, TensorBoardServerException
    from tensorboard.util import tb_logging

    tb_logging.get_logger().setLevel(logging.ERROR)  # else a line about TensorFlow, which is not needed
    server = TensorBoard(plugins=default.get_plugins())
    server.configure(logdir=str(folder.absolute()), host=HOST, **({"port": port} if port is not None else {}))
    try:
        with redirect_stderr(io.StringIO()):  # a note on how TensorBoard reads its files
            return str(server.launch())
    except TensorBoardServerException as error:
        raise UserError(f"TensorBoard does not start: {' '.join(error.msg.split())}") from None


def _check_shows_something(folder: Path) -> None:
    """Raises UserError where TensorBoard would show an empty page. A search that has just begun will have something."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give that of a search, or one that holds searches")
    if not (folder / SETTINGS).exists() and next(folder.rglob("events.out.tfevents.*"), None) is None:
        raise UserError(f"{folder} holds nothing to show: no search, and no training that has finished an epoch")
