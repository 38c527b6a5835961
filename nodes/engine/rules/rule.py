"""A rule: what one Circulation node adds to a model."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from .. import choices
from ..choices import ALL_TOKENS, BOTH, ONE_PASS, check_number, check_word
from ..method import formula
from ..method.settings import CirculationSettings
from ..phrases import Phrase
from ..text import shown
from .blocks import Address, Block, Selection
from .schedule import Schedule


@dataclass(frozen=True)
class Rule:
    """What one Circulation node adds to a MODEL. Raises ValueError that names the input whose value is not allowed."""

    circulation: CirculationSettings
    selection: Selection
    blocks: tuple[Block, ...]
    start_percent: float = 0.0
    end_percent: float = 1.0
    branches: str = BOTH
    schedule: Schedule | None = None
    node: str | None = None  # the id of the node that added it

    def __post_init__(self):
        circulation, adaptive = self.circulation, self.circulation.adaptive
        check_number("alpha", circulation.alpha, *choices.ALPHA_RANGE)
        check_number("beta", circulation.beta, *choices.BETA_RANGE)
        check_number("start_percent", self.start_percent, 0.0, 1.0)
        check_number("end_percent", self.end_percent, 0.0, 1.0)
        check_word("branches", self.branches, choices.BRANCHES)
        check_word("rescale", circulation.rescale, choices.RESCALES)
        check_word("method", circulation.method, choices.METHODS)
        check_word("tokens", circulation.tokens, choices.TOKENS)
        if adaptive is not None:
            check_word("formula", adaptive.formula, choices.FORMULAS)
            check_word("eta_over", adaptive.eta_over, choices.ETA_OVER)
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

    def matches(self, address: Address, branch: str) -> bool:
        """Whether it decides on this branch at this block. `branch` is positive or negative."""
        return self.branches in (BOTH, branch) and any(block.address == address for block in self.blocks)

    def sigma_range(self, percent_to_sigma: Callable[[float], float]) -> tuple[float, float]:
        """(highest, lowest) sigma at which the rule acts, both included, as in ComfyUI's own timestep ranges."""
        highest = math.inf if self.start_percent <= 0 else float(percent_to_sigma(self.start_percent))
        lowest = -math.inf if self.end_percent >= 1 else float(percent_to_sigma(self.end_percent))
        return highest, lowest

    @property
    def one_pass(self) -> Phrase | None:
        """At which alpha it makes its one pass, where that is known beforehand; None for the paper's method."""
        if self.circulation.method != ONE_PASS:
            return None
        alpha, beta, adaptive = self.circulation.alpha, self.circulation.beta, self.circulation.adaptive
        factors = (1.0,) if self.schedule is None else tuple(factor for row in self.schedule.grid for factor in row)
        if adaptive is not None:
            return Phrase("onePassAdaptive", least=f"{choices.ALPHA_RANGE[0]:g}", most=f"{choices.ALPHA_RANGE[1]:g}")
        wanted = 1 + beta * max(factors) * (alpha - 1)
        used = formula.one_pass(1 + max(factors) * (alpha - 1), beta)
        one_pass = Phrase("onePassUpTo" if len(set(factors)) > 1 else "onePass", alpha=f"{used:g}")
        return one_pass if used == wanted else Phrase("onePassLimited", onePass=one_pass, wanted=f"{wanted:g}")

    def __str__(self) -> str:
        circulation = self.circulation
        words = [f"alpha {circulation.alpha:g}", f"beta {circulation.beta:g}"]
        if circulation.adaptive is not None:
            words.append("adaptive")
        if self.one_pass:
            words.append(self.one_pass)
        if self.off:
            words.append("(off)")
        words.append(f"on {shown(self.selection, 400)}")
        if circulation.tokens == ALL_TOKENS:
            words.append("all tokens")
        if self.branches != BOTH:
            words.append(f"{self.branches} only")
        if (self.start_percent, self.end_percent) != (0, 1):
            words.append(f"from {self.start_percent:g} to {self.end_percent:g}")
        if self.schedule is not None:
            words.append(f"by a {self.schedule}")
        return " ".join(words)
