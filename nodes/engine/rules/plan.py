"""Which rule acts on which rows of a call, given the block and the time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from ..method.settings import CirculationSettings
from .blocks import Address, Block
from .rule import Rule


@dataclass(frozen=True)
class Segment:
    """Neighbouring chunks of a batch (one chunk per positive or negative) that share a treatment."""

    start: int
    stop: int
    circulation: CirculationSettings | None
    rules: tuple[int | None, ...]  # which rule decided on each chunk


class ActiveRule(NamedTuple):
    """A rule at a sigma at which it acts."""

    number: int
    rule: Rule
    factors: tuple[float, ...] | None  # of its schedule, for each block of the model


class Plan:
    """All rules of a model during one run, in the order in which they were added. `percent_to_sigma` is the model's own."""

    def __init__(self, rules: Sequence[Rule], percent_to_sigma: Callable[[float], float], blocks: Sequence[Block] = ()):
        self.rules = tuple(rules)
        self._positions = {block.address: position for position, block in enumerate(blocks)}
        self._factors = [None if r.schedule is None else r.schedule.resampled(len(blocks), percent_to_sigma) for r in self.rules]
        # float32, in which samplers hold sigma and ComfyUI compares it with a range
        self._sigma_ranges = [torch.tensor(rule.sigma_range(percent_to_sigma), dtype=torch.float32).tolist() for rule in self.rules]
        self.limited_in_time = any(rule.limited_in_time for rule in self.rules)
        self._active = () if self.limited_in_time else self.active_at(0.0)
        self._segments: dict[tuple, tuple[Segment, ...]] = {}

    @property
    def off(self) -> bool:
        return all(rule.off for rule in self.rules)

    def active_at(self, sigma: float) -> tuple[ActiveRule, ...]:
        """The rules that act at a sigma."""
        return tuple(
            ActiveRule(number, rule, None if factors is None else factors(sigma))
            for number, (rule, (highest, lowest), factors) in enumerate(zip(self.rules, self._sigma_ranges, self._factors))
            if lowest <= sigma <= highest
        )

    def set_sigma(self, sigma: float) -> None:
        """Says at which sigma the calls are that `segments` is asked about."""
        active = self.active_at(sigma)
        if active != self._active:
            self._active = active
            self._segments.clear()

    def settings_for(self, active: ActiveRule, address: Address) -> CirculationSettings | None:
        """What a rule does to a block that it decides on; None where that is nothing."""
        circulation = active.rule.circulation
        if active.factors is not None:
            circulation = replace(circulation, factor=active.factors[self._positions[address]])
        return None if circulation.off else circulation

    def changes_a_block(self, active: ActiveRule) -> bool:
        """Whether the rule does anything at any of its blocks."""
        return any(self.settings_for(active, block.address) for block in active.rule.blocks)

    def segments(self, address: Address, branches: tuple[str, ...]) -> tuple[Segment, ...]:
        """What happens now to each chunk at this block; empty where nothing does. The later rule wins."""
        key = (address, branches)
        if key not in self._segments:
            segments: list[Segment] = []
            for position, branch in enumerate(branches):
                active = next((a for a in reversed(self._active) if a.rule.matches(address, branch)), None)
                circulation = active and self.settings_for(active, address)
                number = active and active.number
                if segments and segments[-1].circulation == circulation:
                    before = segments.pop()
                    segments.append(Segment(before.start, position + 1, circulation, (*before.rules, number)))
                else:
                    segments.append(Segment(position, position + 1, circulation, (number,)))
            changed = any(segment.circulation is not None for segment in segments)
            self._segments[key] = tuple(segments) if changed else ()
        return self._segments[key]
