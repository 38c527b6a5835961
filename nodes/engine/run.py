"""One sampling run: what is done to each attention call, what is seen there, and what came of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .attention import Call
from .blocks import Address, Block, describe
from .circulation import (
    EVERYTHING,
    IMAGE_TOKENS,
    INPUT_SPACE,
    VALUE_SPACE,
    Circulated,
    circulate,
    groups_by_products,
    retrievals,
)
from .plan import Plan, Segment
from .probe import Observer
from .rule import NEGATIVE, POSITIVE
from .scratch import Scratch
from .stability import measure, some_channels

log = logging.getLogger("circulation")

UNEQUAL = "queries and keys differ in number there (HyperTile, token merging, guide frames or a cache of keys)"
REPLACED = "another node replaces the self-attention there (such as PAG or SAG)"
UNEVEN = "the rows there do not divide into positive and negative"
TRAINING = "gradients are being taken"
MISCOUNTED = (
    "another node skips or adds attentions, and in this version of ComfyUI the blocks of this model are told apart by counting them"
)
SKIPPED = "another node skips those blocks or runs them in its own way"
NO_IMAGE = "which of the tokens there are the image's could not be told: set tokens to 'all'"


@dataclass
class Site:
    """An attention over the image about to be computed, announced by the marker in front of it."""

    address: Address
    chunks: tuple[tuple[str, object], ...]  # of the batch: branch, and what tells its prompts apart
    segments: tuple[Segment, ...]
    observers: tuple[Observer, ...]
    x: Tensor | None
    image: slice | None  # those tokens that are the image's, None where that is not known

    def within(self, tokens: str) -> slice:
        return self.image if tokens == IMAGE_TOKENS else EVERYTHING

    @property
    def wants_image(self) -> bool:
        """Whether anybody asks for the image's tokens alone."""
        circulations = (segment.circulation for segment in self.segments if segment.circulation)
        return any(c.tokens == IMAGE_TOKENS for c in circulations) or any(o.probe.tokens == IMAGE_TOKENS for o in self.observers)


class Run:
    """Made when sampling starts, dropped when it ends.

    `begin_evaluation` is called when the sampler asks the model, `begin_pass` and `end_pass` around each
    batch of model calls that it takes to answer, `announce` in front of attentions, `attention` by each
    attention call. `announce` and `attention` read nothing back from the device.
    """

    def __init__(self, plan: Plan, observers: Sequence[Observer], blocks: Sequence[Block], sigmas: Sequence[float], video: bool):
        self.plan = plan
        self.observers = tuple(observers)
        self._blocks = tuple(blocks)
        self._sigmas = tuple(sigmas)
        self._video = video
        self._branches: tuple[str, ...] = ()
        self._pending: dict[torch.device, Site | None] = {}
        self._last_announced: tuple[Address | None, bool] = (None, False)
        self._seen: set[Address] = set()
        self._passes = 0
        self._distrusted = False
        self._hit: set[tuple[int, Address, str]] = set()  # rule, block, branch
        self._declined: dict[str, dict[Address, int]] = {}
        self._nonfinite: dict[torch.device, Tensor] = {}
        self._scratch = Scratch()

    @property
    def idle(self) -> bool:
        """True where nothing can be changed or seen: then nothing is installed at all."""
        return self.plan.off and not self.observers

    def begin_evaluation(self, sigma: Tensor) -> None:
        """`sigma` is (B,); read back once, and only where somebody asks."""
        if self.observers:
            now = float(sigma.flatten()[0])
            for observer in self.observers:
                observer.begin_evaluation(now)

    def begin_pass(self, sigma: Tensor, branches: tuple[str, ...]) -> None:
        """`branches` says of each condition whether it is positive or negative."""
        self._branches = branches
        if self.plan.limited_in_time:
            self.plan.move_to(float(sigma.flatten()[0]))
        for observer in self.observers:
            observer.begin_pass()

    def end_pass(self) -> None:
        """Not called if the pass was cut short."""
        self._passes += 1

    def distrust(self) -> None:
        """The attentions of a model call were other than those of this family: it is no longer known which is which."""
        self._distrusted = True

    def announce(
        self,
        address: Address | None,
        device: torch.device,
        conditions: Sequence[int] = (),
        prompts: Sequence[object] = (),
        x: Tensor | None = None,
        image: slice | None = EVERYTHING,
    ) -> None:
        """An attention comes next on a device; `address` is None for one that is not over the image.

        `conditions` and `prompts` say of each chunk of the batch to which condition and prompt it belongs,
        x (B, L, C) is what the attention gets where that is known, `image` those of the tokens that are the image's.
        """
        unused = self._pending.get(device)
        if unused is not None:
            self._decline(unused.address, REPLACED)
        self._pending[device] = None
        if address is None or self._distrusted or self._is_temporal(address):
            return
        self._seen.add(address)
        branches = tuple(self._branches[c] if c < len(self._branches) else POSITIVE for c in conditions)
        segments = self.plan.segments(address, branches)
        observers = tuple(observer for observer in self.observers if observer.wants(address))
        if segments or observers:
            spaces = {s.circulation.rescale for s in segments if s.circulation} | {o.probe.space for o in observers}
            seen = x if INPUT_SPACE in spaces else None
            self._pending[device] = Site(address, tuple(zip(branches, prompts)), segments, observers, seen, image)

    def attention(self, call: Call) -> Tensor:
        plain = call.plain()
        site = self._pending.get(call.q.device)
        if site is None:
            return plain
        self._pending[call.q.device] = None
        if reason := self._objection(call, plain, site):
            self._decline(site.address, reason)
            return plain
        out, made = plain, ()
        if site.segments:
            self._hit.update(
                (rule, site.address, branch)
                for s in site.segments
                if s.circulation
                for rule, (branch, _) in zip(s.rules, site.chunks[s.start : s.stop])
            )
            out, made = self._circulated(call, plain, site)
        if site.observers:
            self._observe(call, out, made, site)
        return out

    def _circulated(self, call: Call, plain: Tensor, site: Site) -> tuple[Tensor, list[tuple[slice, Circulated | None]]]:
        q, k, v = map(call.heads_of, (call.q, call.k, call.v))
        out = torch.empty_like(plain)
        own, new = call.heads_of_output(plain), call.heads_of_output(out)
        rows_per_chunk = q.shape[0] // len(site.chunks)
        made: list[tuple[slice, Circulated | None]] = []
        for segment in site.segments:
            rows = slice(segment.start * rows_per_chunk, segment.stop * rows_per_chunk)
            circulated = None
            within = slice(0, 0)
            if segment.circulation is not None:
                within = site.within(segment.circulation.tokens)
                circulated = circulate(
                    q[rows],
                    k[rows],
                    v[rows],
                    own[rows],
                    partial(call.attend, rows=rows, queries=within, scratch=self._scratch),
                    segment.circulation,
                    out=new[rows, :, within],
                    scratch=self._scratch,
                    x=None if site.x is None else site.x[rows],
                    mask=call.mask_of(rows),
                    within=within,
                )
            made.append((rows, circulated))
            for others in outside(within):
                new[rows, :, others] = own[rows, :, others]
        return self._finite_or(plain, out), made

    def _finite_or(self, plain: Tensor, out: Tensor) -> Tensor:
        """Image by image the model's own output where ours is not finite, counted on the device."""
        good = torch.isfinite(out.sum(tuple(range(1, out.ndim)), keepdim=True, dtype=torch.float32))
        bad = (~good).sum()
        if out.device in self._nonfinite:
            self._nonfinite[out.device] += bad
        else:
            self._nonfinite[out.device] = bad
        if out.device.type == "cpu" and not bad:  # which costs nothing to read there
            return out
        return torch.where(good, out, plain, out=out)

    def _observe(self, call: Call, out: Tensor, made: Sequence[tuple[slice, Circulated | None]], site: Site) -> None:
        """Stability of what the model retrieved, after circulation if any acted."""
        q, k = call.heads_of(call.q), call.heads_of(call.k)

        def in_input_space(rows: slice, circulated: Circulated | None) -> Tensor:
            of_rows, x, mask = (q[rows], k[rows]), site.x[rows], call.mask_of(rows)
            parts = some_channels(x, q.shape[-1])
            found = [measure(*of_rows, retrievals(*of_rows, some, mask, self._scratch, circulated), self._scratch, overwrite=True) for some in parts]
            return sum(of_part * (some.shape[-1] / x.shape[-1]) for of_part, some in zip(found, parts))

        measured = {}
        for space, tokens in {(observer.probe.space, observer.probe.tokens) for observer in site.observers}:
            if space == VALUE_SPACE:
                within = site.within(tokens)
                values = call.heads_of_output(out)[:, :, within]
                some = (values[:, heads] for heads in groups_by_products(values))
                measured[space, tokens] = measure(q[:, :, within], k[:, :, within], some, self._scratch)
            else:
                parts = made or [(slice(None), None)]
                measured[space, tokens] = torch.cat([in_input_space(*part) for part in parts], dim=1)
        for observer in site.observers:
            observer.see(site.address, site.chunks, measured[observer.probe.space, observer.probe.tokens])

    def _is_temporal(self, address: Address) -> bool:
        """Video UNets announce each address twice in a row, for the frames and then for time."""
        last, was_temporal = self._last_announced
        temporal = self._video and address == last and not was_temporal
        self._last_announced = (address, temporal)
        return temporal

    @staticmethod
    def _objection(call: Call, plain: Tensor, site: Site) -> str | None:
        if call.tokens(call.q) != call.tokens(call.k):
            return UNEQUAL
        if call.q.shape[0] % len(site.chunks):
            return UNEVEN
        if plain.requires_grad:
            return TRAINING
        if site.image is None and site.wants_image:
            return NO_IMAGE
        return None

    def _decline(self, address: Address, reason: str) -> None:
        calls = self._declined.setdefault(reason, {})
        calls[address] = calls.get(address, 0) + 1

    def declined(self, blocks: Sequence[Block] | None = None) -> list[str]:
        """What was left alone, where and why, in sentences; of these blocks only, if given."""
        if blocks is None:
            blocks = [block for part in (*self.plan.rules, *(o.probe for o in self.observers)) for block in part.blocks]
        wanted = {block.address for block in blocks}
        missed = [block for block in self._blocks if block.address in wanted - self._seen]
        sentences = [f"Never came to {describe(missed)}: {SKIPPED}."] if self._passes and missed else []
        if self._distrusted:
            sentences.append(f"Left alone after the first call of the model: {MISCOUNTED}.")
        for reason, calls in self._declined.items():
            where = [b for b in self._blocks if b.address in calls and (blocks is None or b in blocks)]
            if where:
                count = sum(calls[block.address] for block in where)
                sentences.append(f"Left alone in {count} calls at {describe(where)}: {reason}.")
        return sentences

    def report(self) -> None:
        """One line at the end of a run, and one more if something was not finite."""
        if self.plan.off:
            return
        rules = "; ".join(map(str, self.plan.rules))
        log.info(" ".join((f"Circulation: {rules}: {self._extent(range(len(self.plan.rules)))}.", *self.declined())))
        if bad := self._bad():
            log.warning(
                "Circulation: %d attention results were not finite and were replaced by the model's own. "
                "Bring alpha nearer to 1 or beta nearer to 0, or run the model in a wider precision.",
                bad,
            )

    def statuses(self) -> list[tuple[str, str]]:
        """For each node that made a rule: its id, and what came of its rule in this run, in a line."""
        lines = []
        for number, rule in enumerate(self.plan.rules):
            if rule.off:
                line = ["Off: the model is left as it is."]
            else:
                line = [f"{self._extent([number])}." if any(n == number for n, *_ in self._hit) else "No block hit."]
                own = {block.address for block in rule.blocks}
                if taken := {address for n, address, _ in self._hit if n > number and address in own}:
                    line.append(f"Nearer to the sampler another Circulation node decides at {len(taken)} of its {len(own)} blocks.")
                line += self.declined(rule.blocks)
                if bad := self._bad():
                    line.append(f"{bad} results were not finite and were left as they were.")
            if rule.node is not None:
                lines.append((rule.node, " ".join(line)))
        return lines

    def _bad(self) -> int:
        return sum(int(count) for count in self._nonfinite.values())

    def _extent(self, rules: Sequence[int]) -> str:
        """How many blocks, which steps and which branches these rules have acted on."""
        hit = [(address, branch) for rule, address, branch in self._hit if rule in rules]
        blocks = {address for address, _ in hit}
        branches = " and ".join(b for b in (POSITIVE, NEGATIVE) if any(b == branch for _, branch in hit)) or "no branch"
        return f"{len(blocks)} of {len(self._blocks)} blocks hit, {self._steps_hit(rules)}, {branches}"

    def _steps_hit(self, rules: Sequence[int]) -> str:
        steps = len(self._sigmas) - 1
        acting = [
            step
            for step, sigma in enumerate(self._sigmas[:-1], 1)
            if any(a.number in rules and self.plan.does_something(a) for a in self.plan.acting_at(sigma))
        ]
        if len(acting) == steps:
            return f"all {steps} steps"
        if not acting:
            return f"none of {steps} steps"
        if acting == list(range(acting[0], acting[-1] + 1)):
            return f"steps {acting[0]} to {acting[-1]} of {steps}"
        return f"steps {', '.join(map(str, acting))} of {steps}"


def outside(tokens: slice) -> Iterator[slice]:
    """All tokens but these."""
    if tokens != EVERYTHING:
        yield slice(0, tokens.start)
        yield slice(tokens.stop, None)
