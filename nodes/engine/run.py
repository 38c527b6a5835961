"""One sampling run: which rule acts where and when, and what came of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .blocks import Block, describe
from .circulation import INPUT_SPACE, Circulation, circulate
from .attention import Call
from .rule import NEGATIVE, POSITIVE, Rule

log = logging.getLogger("circulation")

Address = tuple[str, int, int]

UNEQUAL = "queries and keys differ in number there (HyperTile or token merging)"
REPLACED = "another node replaces the self-attention there (such as PAG or SAG)"
UNEVEN = "the rows there do not divide into positive and negative"
TRAINING = "gradients are being taken"


@dataclass(frozen=True)
class Segment:
    """Neighbouring chunks of the batch (one chunk per positive or negative) that share a treatment."""

    start: int
    stop: int
    circulation: Circulation | None


@dataclass
class Site:
    """A self-attention about to be computed, announced by the marker in front of it."""

    address: Address
    segments: tuple[Segment, ...]
    x: Tensor | None


class Run:
    """Made when sampling starts, dropped when it ends.

    `begin_batch` is called before each batch of model calls, `announce` by the markers in front of
    attentions, `attention` by each attention call. No method reads a value back from the device
    but `begin_batch` (one sigma, and only where a rule is limited in time) and `report`.
    """

    def __init__(self, rules: Sequence[Rule], blocks: Sequence[Block], model_sampling, sigmas: Tensor, video: bool):
        self.rules = tuple(rules)
        self.blocks = tuple(blocks)
        self.steps = len(sigmas) - 1
        # float32, in which samplers hold sigma: core's comparison of a tensor and a number is made there
        self._windows = [
            tuple(torch.tensor(rule.sigmas(model_sampling), dtype=torch.float32).tolist()) for rule in self.rules
        ]
        self._limited = any(rule.start_percent > 0 or rule.end_percent < 1 for rule in self.rules)
        self._sigmas = sigmas.tolist() if self._limited else None
        self._acting = () if self._limited else self.rules
        self._branches: tuple[str, ...] = ()
        self._plans: dict[tuple, tuple[Segment, ...]] = {}
        self._pending: dict[torch.device, Site | None] = {}
        self._last_announced: tuple[Address | None, bool] = (None, False)
        self._video = video
        self._hit: set[Address] = set()
        self._hit_branches: set[str] = set()
        self._declined: dict[str, dict[Address, int]] = {}
        self._nonfinite: dict[torch.device, Tensor] = {}

    @property
    def idle(self) -> bool:
        """True where no rule can change anything: then nothing is installed at all."""
        return all(rule.circulation.off for rule in self.rules)

    def begin_batch(self, sigma: Tensor, branches: tuple[str, ...]) -> None:
        """`sigma` is (B,); `branches` says of each condition whether it is positive or negative."""
        acting = self.rules
        if self._limited:
            now = float(sigma.flatten()[0])
            acting = tuple(r for r, (high, low) in zip(self.rules, self._windows) if low <= now <= high)
        if acting != self._acting or branches != self._branches:
            self._acting, self._branches = acting, branches
            self._plans.clear()

    def announce(self, address: Address | None, x: Tensor, chunks: Sequence[int]) -> None:
        """A self-attention on x (B, L, C) comes next; `address` is None for an attention of another kind."""
        unused = self._pending.get(x.device)
        if unused is not None:
            self._decline(unused.address, REPLACED)
        self._pending[x.device] = None
        if address is None or self._is_temporal(address):
            return
        segments = self._plan(address, tuple(chunks))
        if segments:
            needs_x = any(s.circulation is not None and s.circulation.rescale == INPUT_SPACE for s in segments)
            self._pending[x.device] = Site(address, segments, x if needs_x else None)

    def attention(self, call: Call) -> Tensor:
        plain = call.plain()
        site = self._pending.get(call.q.device)
        if site is None:
            return plain
        self._pending[call.q.device] = None
        if reason := self._objection(call, plain, site):
            self._decline(site.address, reason)
            return plain
        self._hit.add(site.address)
        return self._circulated(call, plain, site)

    def _circulated(self, call: Call, plain: Tensor, site: Site) -> Tensor:
        q, k, v = map(call.heads_of, (call.q, call.k, call.v))
        own = call.heads_of_output(plain)
        rows_per_chunk = q.shape[0] // site.segments[-1].stop
        parts = []
        for segment in site.segments:
            rows = slice(segment.start * rows_per_chunk, segment.stop * rows_per_chunk)
            if segment.circulation is None:
                parts.append(own[rows])
                continue
            parts.append(
                circulate(
                    q[rows],
                    k[rows],
                    v[rows],
                    own[rows],
                    lambda *qkv, rows=rows: call.attend(*qkv, rows),
                    segment.circulation,
                    x=None if site.x is None else site.x[rows],
                    mask=call.mask_of(rows),
                ).out
            )
        return self._finite_or(plain, call.as_output(parts[0] if len(parts) == 1 else torch.cat(parts)))

    def _finite_or(self, plain: Tensor, out: Tensor) -> Tensor:
        """Image by image the model's own output where ours is not finite, counted on the device."""
        low, high = torch.aminmax(out.flatten(1), dim=1)
        good = torch.isfinite(low) & torch.isfinite(high)
        bad = (~good).sum()
        if out.device in self._nonfinite:
            self._nonfinite[out.device] += bad
        else:
            self._nonfinite[out.device] = bad
        return torch.where(good.reshape(-1, *[1] * (out.ndim - 1)), out, plain)

    def _plan(self, address: Address, chunks: tuple[int, ...]) -> tuple[Segment, ...]:
        """What happens to each chunk at this block now; empty where nothing does. The later rule wins."""
        key = (address, chunks)
        if key not in self._plans:
            segments: list[Segment] = []
            for position, condition in enumerate(chunks):
                branch = self._branches[condition] if condition < len(self._branches) else POSITIVE
                rule = next((rule for rule in reversed(self._acting) if rule.matches(address, branch)), None)
                circulation = None if rule is None or rule.circulation.off else rule.circulation
                if circulation is not None:
                    self._hit_branches.add(branch)
                if segments and segments[-1].circulation == circulation:
                    segments[-1] = Segment(segments[-1].start, position + 1, circulation)
                else:
                    segments.append(Segment(position, position + 1, circulation))
            active = any(segment.circulation is not None for segment in segments)
            self._plans[key] = tuple(segments) if active else ()
        return self._plans[key]

    def _is_temporal(self, address: Address) -> bool:
        """Video UNets announce each address twice in a row, for the frames and then for time."""
        last, was_temporal = self._last_announced
        temporal = self._video and address == last and not was_temporal
        self._last_announced = (address, temporal)
        return temporal

    @staticmethod
    def _objection(call: Call, plain: Tensor, site: Site) -> str | None:
        if call.q.shape[:-1] != call.k.shape[:-1]:
            return UNEQUAL
        if call.q.shape[0] % site.segments[-1].stop:
            return UNEVEN
        if plain.requires_grad:
            return TRAINING
        return None

    def _decline(self, address: Address, reason: str) -> None:
        calls = self._declined.setdefault(reason, {})
        calls[address] = calls.get(address, 0) + 1

    def report(self) -> None:
        """One line at the end of a run, and one more if something was not finite."""
        rules = "; ".join(map(str, self.rules))
        if self.idle:
            return
        hit = f"{len(self._hit)} of {len(self.blocks)} blocks hit"
        branches = " and ".join(b for b in (POSITIVE, NEGATIVE) if b in self._hit_branches) or "no branch"
        line = f"Circulation: {rules}: {hit}, {self._steps_hit()}, {branches}."
        for reason, calls in self._declined.items():
            where = describe(block for block in self.blocks if block.address in calls)
            line += f" Left alone in {sum(calls.values())} calls at {where}: {reason}."
        log.info(line)
        bad = sum(int(count) for count in self._nonfinite.values())
        if bad:
            log.warning(
                "Circulation: %d attention results were not finite and were replaced by the model's own. "
                "Bring alpha nearer to 1 or beta nearer to 0, or run the model in a wider precision.",
                bad,
            )

    def _steps_hit(self) -> str:
        if not self._limited:
            return f"all {self.steps} steps"
        acting = [
            step + 1
            for step, sigma in enumerate(self._sigmas[:-1])
            if any(low <= sigma <= high and not r.circulation.off for r, (high, low) in zip(self.rules, self._windows))
        ]
        if not acting:
            return f"none of {self.steps} steps"
        if acting == list(range(acting[0], acting[-1] + 1)):
            return f"steps {acting[0]} to {acting[-1]} of {self.steps}"
        return f"steps {', '.join(map(str, acting))} of {self.steps}"
