"""`report`: a search as one HTML file."""

from __future__ import annotations

import argparse

from tune_cropshield.config.places import cache_dir


def run(args: argparse.Namespace) -> int:
    """Writes SEARCH_DIR/report.html and prints its path."""
    from tune_cropshield.outcome.report import write_report

    print(write_report(args.search_dir, cache_dir()))
    return 0
