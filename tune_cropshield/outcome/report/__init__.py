"""report.html, written from a search's folder."""

from tune_cropshield.outcome.report.build import REPORT, write_report

__all__ = ["REPORT", "write_report"]
