"""What a probe's process may do instead of measuring. A module of its own, without PyTorch: every process imports it
anew.
"""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

from tune_cropshield.memory.measure.points import Point
from tune_cropshield.memory.measure.process import Failure, Request


def dies_at_64(connection: Connection, request: Request) -> None:
    """Answers with its process id as reserved memory; 64 images are its end."""
    while True:
        size = connection.recv()
        if size == 64:
            os._exit(3)
        connection.send((Point(size, request.share_mib, 1.0, float(os.getpid()), 1.0), 450.0))


def loses_its_context(connection: Connection, request: Request) -> None:
    connection.recv()
    connection.send(Failure("CUDA error: an illegal memory access was encountered", dead=True))


def has_a_fault(connection: Connection, request: Request) -> None:
    connection.recv()
    connection.send(Failure("Traceback: ...\nZeroDivisionError: division by zero", dead=False))


def small_card(connection: Connection, request: Request) -> None:
    """Reserves 100 MiB and 40 for each image, and is faster the more there are, up to 64; its context takes 700 MiB."""
    while True:
        size = connection.recv()
        need = 100.0 + 40.0 * size
        point = Point(size, request.share_mib, reason="CUDA out of memory")
        if need <= request.share_mib:
            point = Point(size, request.share_mib, need - 10, need, 10.0 * min(size, 64))
        connection.send((point, 700.0))
