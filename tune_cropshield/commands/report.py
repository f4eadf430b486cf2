"""`report`: a search as one HTML file."""

from __future__ import annotations

import argparse


def run(args: argparse.Namespace) -> int:
    """Writes SEARCH_DIR/report.html and prints its path."""
    from tune_cropshield.api.report import report

    print(report(args.search_dir))
    return 0
