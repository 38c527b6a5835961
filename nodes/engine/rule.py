"""A rule: what one Circulation node adds to a model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .blocks import Block, Selection
from .circulation import ALL_TOKENS, ETA_OVER, FORMULAS, RESCALES, TOKENS, Circulation
from .schedule import Schedule

BOTH = "both"
POSITIVE = "positive"
NEGATIVE = "negative"
BRANCHES = (BOTH, POSITIVE, NEGATIVE)

ALPHA_RANGE = (-1.0, 3.0)
BETA_RANGE = (0.0, 10.0)


@dataclass(frozen=True)
class Rule:
    circulation: Circulation
    selection: Selection
    blocks: tuple[Block, ...]
    start_percent: float = 0.0
    end_percent: float = 1.0
    branches: str = BOTH
    schedule: Schedule | None = None
    node: str | None = None  # that made it

    def __post_init__(self):
        circulation, adaptive = self.circulation, self.circulation.adaptive
        _check("alpha", circulation.alpha, *ALPHA_RANGE)
        _check("beta", circulation.beta, *BETA_RANGE)
        _check("start_percent", self.start_percent, 0.0, 1.0)
        _check("end_percent", self.end_percent, 0.0, 1.0)
        check_word("branches", self.branches, BRANCHES)
        check_word("rescale", circulation.rescale, RESCALES)
        check_word("tokens", circulation.tokens, TOKENS)
        if adaptive is not None:
            check_word("formula", adaptive.formula, FORMULAS)
            check_word("eta_over", adaptive.eta_over, ETA_OVER)
        if self.start_percent > self.end_percent:
            raise ValueError(
                f"start_percent {self.start_percent:g} lies after end_percent {self.end_percent:g}: swap them."
            )

    @property
    def off(self) -> bool:
        return self.circulation.off or (self.schedule is not None and self.schedule.off)

    @property
    def limited_in_time(self) -> bool:
        limits = self.start_percent > 0 or self.end_percent < 1
        return limits or (self.schedule is not None and self.schedule.changes_in_time)

    def matches(self, address: tuple[str, int, int], branch: str) -> bool:
        return self.branches in (BOTH, branch) and any(block.address == address for block in self.blocks)

    def sigmas(self, model_sampling) -> tuple[float, float]:
        """(highest, lowest) sigma at which the rule acts, both included, as core's own timestep ranges."""
        highest = math.inf if self.start_percent <= 0 else float(model_sampling.percent_to_sigma(self.start_percent))
        lowest = -math.inf if self.end_percent >= 1 else float(model_sampling.percent_to_sigma(self.end_percent))
        return highest, lowest

    def __str__(self) -> str:
        circulation = self.circulation
        words = [f"alpha {circulation.alpha:g}", f"beta {circulation.beta:g}"]
        if circulation.adaptive is not None:
            words.append("adaptive")
        if self.off:
            words.append("(off)")
        words.append(f"on {self.selection}")
        if circulation.tokens == ALL_TOKENS:
            words.append("all tokens")
        if self.branches != BOTH:
            words.append(f"{self.branches} only")
        if (self.start_percent, self.end_percent) != (0, 1):
            words.append(f"from {self.start_percent:g} to {self.end_percent:g}")
        if self.schedule is not None:
            words.append(f"by a {self.schedule}")
        return " ".join(words)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also false for NaN
        raise ValueError(f"{name} is {value:g} and must be between {low:g} and {high:g}.")


def check_word(name: str, word: str, words: tuple[str, ...]) -> None:
    if word not in words:
        raise ValueError(f"{name} is '{word}' and must be one of: {', '.join(words)}.")
