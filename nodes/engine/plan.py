"""Which rule acts on which rows of a call, given the block and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from .blocks import Block
from .circulation import Circulation
from .rule import Rule


@dataclass(frozen=True)
class Segment:
    """Neighbouring chunks of a batch (one chunk per positive or negative) that share a treatment."""

    start: int
    stop: int
    circulation: Circulation | None
    rules: tuple[int | None, ...]  # which rule decided on each chunk


class Acting(NamedTuple):
    """A rule at a time when it acts."""

    number: int
    rule: Rule
    factors: tuple[float, ...] | None  # of its schedule, for each block of the model


class Plan:
    def __init__(self, rules: Sequence[Rule], model_sampling, blocks: Sequence[Block] = ()):
        self.rules = tuple(rules)
        self._positions = {block.address: position for position, block in enumerate(blocks)}
        self._factors = [r.schedule and r.schedule.over(len(blocks), model_sampling.percent_to_sigma) for r in self.rules]
        # float32, in which samplers hold sigma: core's comparison of a tensor and a number is made there
        self._windows = [
            tuple(torch.tensor(rule.sigmas(model_sampling), dtype=torch.float32).tolist()) for rule in self.rules
        ]
        self.limited_in_time = any(rule.limited_in_time for rule in self.rules)
        self._acting = () if self.limited_in_time else self.acting_at(0.0)
        self._segments: dict[tuple, tuple[Segment, ...]] = {}

    @property
    def off(self) -> bool:
        return all(rule.off for rule in self.rules)

    def acting_at(self, sigma: float) -> tuple[Acting, ...]:
        return tuple(
            Acting(number, rule, factors and factors(sigma))
            for number, (rule, (highest, lowest), factors) in enumerate(zip(self.rules, self._windows, self._factors))
            if lowest <= sigma <= highest
        )

    def move_to(self, sigma: float) -> None:
        acting = self.acting_at(sigma)
        if acting != self._acting:
            self._acting = acting
            self._segments.clear()

    def treatment(self, acting: Acting, address: tuple[str, int, int]) -> Circulation | None:
        """What a rule does to a block that it decides on."""
        circulation = acting.rule.circulation
        if acting.factors is not None:
            circulation = replace(circulation, factor=acting.factors[self._positions[address]])
        return None if circulation.off else circulation

    def does_something(self, acting: Acting) -> bool:
        return any(self.treatment(acting, block.address) for block in acting.rule.blocks)

    def segments(self, address: tuple[str, int, int], branches: tuple[str, ...]) -> tuple[Segment, ...]:
        """What happens now to each chunk at this block; empty where nothing does. The later rule wins."""
        key = (address, branches)
        if key not in self._segments:
            segments: list[Segment] = []
            for position, branch in enumerate(branches):
                acting = next((a for a in reversed(self._acting) if a.rule.matches(address, branch)), None)
                circulation = acting and self.treatment(acting, address)
                number = None if acting is None else acting.number
                if segments and segments[-1].circulation == circulation:
                    before = segments.pop()
                    segments.append(Segment(before.start, position + 1, circulation, (*before.rules, number)))
                else:
                    segments.append(Segment(position, position + 1, circulation, (number,)))
            active = any(segment.circulation is not None for segment in segments)
            self._segments[key] = tuple(segments) if active else ()
        return self._segments[key]
