"""What was measured, and how it stands to the budgets: medians, ratios, and a table of them.

Rule: a budget that is missed is printed, never asserted: on a machine that is shared, time proves nothing.
"""

from __future__ import annotations

import statistics
from typing import NamedTuple

OURS = "durward"
PEERS = ("supervisord", "circus", "runit", "s6", "daemontools")
FLOOR = "splice loop"
ALL = (OURS, *PEERS, FLOOR)


class Budget(NamedTuple):
    """A figure of ours may be at most, or with at_least must be at least, `times` what `of` reached.

    `of` is a manager, the floor, "best peer", or nothing: then `times` is in the figure's own unit.
    """

    figure: str
    times: float
    of: str = ""
    at_least: bool = False


class Figure(NamedTuple):
    unit: str
    digits: int = 1
    more_is_better: bool = False


class Verdict(NamedTuple):
    budget: Budget
    reached: float  # the ratio, or the figure itself where the budget is a number
    compared: str  # with whom
    met: bool


class Figures:
    """figure -> who -> samples, in the order in which they were first added."""

    def __init__(self) -> None:
        self.kinds: dict[str, Figure] = {}
        self.samples: dict[str, dict[str, list[float]]] = {}

    def add(self, figure: str, kind: Figure, who: str, value: float) -> None:
        self.kinds[figure] = kind
        self.samples.setdefault(figure, {}).setdefault(who, []).append(value)

    def of(self, figure: str) -> dict[str, float]:
        """The median of each."""
        return {who: statistics.median(values) for who, values in self.samples.get(figure, {}).items()}

    def judge(self, budget: Budget) -> Verdict | None:
        """None when there is nothing to judge, or nothing to compare with."""
        medians = self.of(budget.figure)
        if OURS not in medians:
            return None
        reached, compared = medians[OURS], ""
        if budget.of:
            others = {who: medians[who] for who in PEERS if who in medians}
            compared = budget.of
            if budget.of == "best peer" and others:
                compared = (max if self.kinds[budget.figure].more_is_better else min)(others, key=others.__getitem__)
            if not medians.get(compared):
                return None
            reached /= medians[compared]
        else:
            reached = round(reached, self.kinds[budget.figure].digits)
        met = reached >= budget.times if budget.at_least else reached <= budget.times
        return Verdict(budget, reached, compared, met)

    def table(self, who: tuple[str, ...], budgets: tuple[Budget, ...] = ()) -> str:
        """A row a figure: the median of each of `who`, and how it stands to its budgets."""
        head = ["what", *who, *(["budget"] if budgets else [])]
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for figure, kind in self.kinds.items():
            medians = self.of(figure)
            cells = [f"{medians[one]:,.{kind.digits}f}" if one in medians else "" for one in who]
            verdicts = [self.judge(budget) for budget in budgets if budget.figure == figure]
            said = "; ".join(self._said(verdict) for verdict in verdicts if verdict is not None)
            cells += [said] if budgets else []
            lines.append(f"| {figure}, {kind.unit} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _said(self, verdict: Verdict) -> str:
        budget, kind = verdict.budget, self.kinds[verdict.budget.figure]
        sign, word = ("≥" if budget.at_least else "≤"), ("met" if verdict.met else "MISSED")
        if verdict.compared:
            return f"{verdict.reached:.2f} times {verdict.compared} ({sign} {budget.times:g}): {word}"
        return f"{sign} {budget.times:g} {kind.unit}: {word}"
