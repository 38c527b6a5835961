"""What is done to one attention call."""

from dataclasses import dataclass

from ..choices import DEVIATION, IMAGE, IMAGE_TOKENS, ONE_PASS, PAPER, SCALE, VALUE_SPACE


@dataclass(frozen=True)
class AdaptiveSettings:
    """How the symmetry index η sets the strength, call by call (see `formula.adapt`)."""

    adapts_alpha: bool = True
    adapts_beta: bool = True
    formula: str = DEVIATION
    eta_over: str = IMAGE


@dataclass(frozen=True)
class CirculationSettings:
    """The paper's α and β, and what this pack adds to them."""

    alpha: float
    beta: float
    rescale: str = VALUE_SPACE
    adaptive: AdaptiveSettings | None = None
    tokens: str = IMAGE_TOKENS
    factor: float = 1.0  # on α − 1, as a schedule sets it
    method: str = PAPER

    @property
    def off(self) -> bool:
        """True where the formulas give back the model's own output, whatever q and k are."""
        follows_eta = self.adaptive is not None and self.adaptive.adapts_alpha and self.adaptive.formula == SCALE
        return self.beta == 0 or self.factor == 0 or (self.alpha == 1 and not follows_eta)

    @property
    def one_call(self) -> bool:
        """True where Ξ_α alone is the result: Ξ_new = Ξ_α and ρ = 1 at β = 1, and in one pass."""
        follows_eta = self.adaptive is not None and self.adaptive.adapts_beta
        return self.method == ONE_PASS or (self.beta == 1 and not follows_eta)

    @property
    def label(self) -> str:
        """What it is called on a sheet: 'alpha 1.05, beta 3', or 'off'."""
        if self.off:
            return "off"
        words = [f"alpha {self.alpha:.12g}", f"beta {self.beta:.12g}"]
        if self.adaptive is not None:
            words.append("adaptive")
        if self.method == ONE_PASS:
            words.append(ONE_PASS)
        return ", ".join(words)
