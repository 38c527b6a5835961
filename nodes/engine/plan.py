"""Which rule acts on which rows of a call, given the block and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .circulation import Circulation
from .rule import Rule


@dataclass(frozen=True)
class Segment:
    """Neighbouring chunks of a batch (one chunk per positive or negative) that share a treatment."""

    start: int
    stop: int
    circulation: Circulation | None


class Plan:
    def __init__(self, rules: Sequence[Rule], model_sampling):
        self.rules = tuple(rules)
        # float32, in which samplers hold sigma: core's comparison of a tensor and a number is made there
        self._windows = [
            tuple(torch.tensor(rule.sigmas(model_sampling), dtype=torch.float32).tolist()) for rule in self.rules
        ]
        self.limited_in_time = any(rule.start_percent > 0 or rule.end_percent < 1 for rule in self.rules)
        self._acting = () if self.limited_in_time else self.rules
        self._segments: dict[tuple, tuple[Segment, ...]] = {}

    @property
    def off(self) -> bool:
        return all(rule.circulation.off for rule in self.rules)

    def acting_at(self, sigma: float) -> tuple[Rule, ...]:
        return tuple(r for r, (highest, lowest) in zip(self.rules, self._windows) if lowest <= sigma <= highest)

    def move_to(self, sigma: float) -> None:
        acting = self.acting_at(sigma)
        if acting != self._acting:
            self._acting = acting
            self._segments.clear()

    def segments(self, address: tuple[str, int, int], branches: tuple[str, ...]) -> tuple[Segment, ...]:
        """What happens now to each chunk at this block; empty where nothing does. The later rule wins."""
        key = (address, branches)
        if key not in self._segments:
            segments: list[Segment] = []
            for position, branch in enumerate(branches):
                rule = next((rule for rule in reversed(self._acting) if rule.matches(address, branch)), None)
                circulation = None if rule is None or rule.circulation.off else rule.circulation
                start = segments.pop().start if segments and segments[-1].circulation == circulation else position
                segments.append(Segment(start, position + 1, circulation))
            active = any(segment.circulation is not None for segment in segments)
            self._segments[key] = tuple(segments) if active else ()
        return self._segments[key]
