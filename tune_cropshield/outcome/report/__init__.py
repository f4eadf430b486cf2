"""report.html, written from a search's folder."""

from tune_cropshield.outcome.report.build import REPORT, load_libraries, write_report

__all__ = ["REPORT", "load_libraries", "write_report"]
