"""A training script's known mistakes, line by line. The script is read, never run; nothing heavy is imported."""

from tune_cropshield.check_script.checks import check
from tune_cropshield.check_script.rules import Finding

__all__ = ["Finding", "check"]
