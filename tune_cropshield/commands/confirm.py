"""`confirm`: is a search's win larger than seed noise?"""

from __future__ import annotations

import argparse


def run(args: argparse.Namespace) -> int:
    """Trains the best trials and the reference setting again over several seeds, and says what that shows."""
    from tune_cropshield.api.confirm import confirm

    found = confirm(args.search_dir, top=args.top, seeds=args.seeds, data=args.data, device=args.device)
    return 0 if found.any_finished else 1
