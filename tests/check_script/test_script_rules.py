"""Each rule finds its mistake on its line, says nothing of the right form, and loops as good people write them come out
clean.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from good_loops import GOOD_LOOPS
from snippets import RIGHT, WRONG

import tune_cropshield
from tune_cropshield.check_script import check
from tune_cropshield.check_script.checks import check_source
from tune_cropshield.check_script.rules import RULES
from tune_cropshield.check_script.source import parse_source


def found_in(script: str) -> list[tuple[int, str]]:
    return [(finding.line, finding.rule) for finding in check_source(parse_source(script, "train.py")).findings]


@pytest.mark.parametrize(
    ("rule", "line", "script"), [(rule, line, script) for rule, cases in WRONG.items() for line, script in cases]
)
def test_a_mistake_is_found_on_its_line(rule: str, line: int, script: str) -> None:
    assert (line, rule) in found_in(script)


@pytest.mark.parametrize(("rule", "script"), [(rule, script) for rule, scripts in RIGHT.items() for script in scripts])
def test_what_only_looks_like_a_mistake_is_left_alone(rule: str, script: str) -> None:
    assert rule not in [found for _, found in found_in(script)]


def test_every_rule_has_a_script_that_breaks_it() -> None:
    assert set(WRONG) == set(RULES)


@pytest.mark.parametrize("name", GOOD_LOOPS)
def test_a_good_loop_has_no_findings(name: str) -> None:
    assert found_in(GOOD_LOOPS[name]) == []


@pytest.mark.slow
def test_our_own_code_has_no_findings_but_the_guides_formula_that_it_keeps() -> None:
    package = Path(tune_cropshield.__file__).parent
    scripts = [path for room in ("training", "memory", "data", "config") for path in (package / room).rglob("*.py")]

    assert len(scripts) > 40
    assert {(path.name, finding.rule) for path in scripts for finding in check(path).findings} == {
        ("reference.py", "memory-formula")
    }


def test_a_finding_says_what_is_wrong_and_what_is_right() -> None:
    (finding,) = check_source(parse_source("parser.add_argument('--amp', type=bool)", "train.py")).findings

    assert (
        finding.wrong == "type=bool calls bool() on the text: '--flag False' is True, as is every text but an empty one"
    )
    assert finding.right == "action=argparse.BooleanOptionalAction (--amp, --no-amp)"
