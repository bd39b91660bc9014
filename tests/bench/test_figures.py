"""How figures are judged: these run with the whole suite."""

from __future__ import annotations

import pytest
from budgets import BUDGETS
from figures import ALL, FLOOR, Budget, Figure, Figures

TIME, RATE = Figure("ms"), Figure("MB/s", 0, more_is_better=True)


def filled(kind: Figure, **values: float) -> Figures:
    figures = Figures()
    for who, value in values.items():
        figures.add("it", kind, who, value)
    return figures


def test_the_best_peer_is_the_quickest_and_of_rates_the_greatest() -> None:
    for kind, best, reached in ((TIME, "runit", 0.5), (RATE, "s6", 0.25)):
        verdict = filled(kind, durward=1.0, runit=2.0, s6=4.0).judge(Budget("it", 0.5, "best peer"))
        assert verdict is not None
        assert (verdict.compared, verdict.reached) == (best, reached)


def test_the_floor_is_no_peer() -> None:
    figures = filled(RATE, durward=900.0, s6=100.0)
    figures.add("it", RATE, FLOOR, 1000.0)
    assert figures.judge(Budget("it", 1.5, "best peer", at_least=True)).compared == "s6"
    assert figures.judge(Budget("it", 0.8, FLOOR, at_least=True)).met


@pytest.mark.parametrize(
    ("budget", "word"),
    [
        (Budget("it", 0.5, "runit"), "0.50 times runit (≤ 0.5): met"),
        (Budget("it", 0.4, "runit"), "0.50 times runit (≤ 0.4): MISSED"),
        (Budget("it", 1.0), "≤ 1 ms: met"),
        (Budget("it", 0.9), "≤ 0.9 ms: MISSED"),
        (Budget("it", 2.0, at_least=True), "≥ 2 ms: MISSED"),
    ],
)
def test_a_budget_is_met_or_missed_and_the_table_says_by_how_much(budget: Budget, word: str) -> None:
    table = filled(TIME, durward=1.0, runit=2.0).table(ALL, (budget,))
    assert table.endswith(f"| {word} |")


def test_the_median_is_taken() -> None:
    figures = filled(TIME, durward=1.0)
    for value in (9.0, 2.0):
        figures.add("it", TIME, "durward", value)
    assert figures.of("it") == {"durward": 2.0}


def test_without_somebody_to_compare_with_nothing_is_judged() -> None:
    assert filled(TIME, durward=1.0).judge(Budget("it", 0.5, "best peer")) is None
    assert filled(TIME, runit=1.0).judge(Budget("it", 0.5)) is None


def test_what_a_budget_compares_with_is_measured() -> None:
    assert {budget.of for budget in BUDGETS} <= {"", "best peer", *ALL}
