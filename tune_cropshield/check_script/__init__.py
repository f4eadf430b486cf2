"""A training script's known mistakes, line by line. The script is read, never run; nothing heavy is imported."""

from tune_cropshield.check_script.checks import Judgement, check
from tune_cropshield.check_script.files import scripts_in
from tune_cropshield.check_script.rules import Finding

__all__ = ["Finding", "Judgement", "check", "scripts_in"]
