"""What came of a run, in words for the log, the nodes and the records."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

import torch
from torch import Tensor

from ..choices import NEGATIVE, POSITIVE
from ..rules.blocks import Address, Block, describe
from ..rules.plan import Plan

log = logging.getLogger("circulation")


class Reason(Enum):
    """Why an attention was left alone."""

    UNEQUAL = "queries and keys differ in number there (HyperTile, token merging, guide frames or a cache of keys)"
    REPLACED = "another node replaces the self-attention there (such as PAG or SAG)"
    UNEVEN = "the rows there do not divide into positive and negative"
    TRAINING = "gradients are being taken"
    NO_IMAGE = "which of the tokens there are the image's could not be told: set tokens to 'all'"


MISCOUNTED = (
    "another node skips or adds attentions, and in this version of ComfyUI the blocks of this model are told apart by counting them"
)
SKIPPED = "another node skips those blocks or runs them in its own way"


class Outcome:
    """Written during the run, read when it has ended."""

    def __init__(self, plan: Plan, blocks: Sequence[Block], selected: Iterable[Block], sigmas: Sequence[float]):
        """`blocks` are all of the model in execution order, `selected` those of any rule or probe."""
        self.announced: set[Address] = set()
        self.passes = 0  # that ended
        self.distrusted = False
        self._plan = plan
        self._blocks = tuple(blocks)
        self._selected = tuple(selected)
        self._sigmas = tuple(sigmas)
        self._hit: set[tuple[int, Address, str]] = set()  # rule, block, branch
        self._declined: dict[Reason, dict[Address, int]] = {}
        self._nonfinite: dict[torch.device, Tensor] = {}

    def hit(self, rule: int, address: Address, branch: str) -> None:
        """A rule changed the rows of a branch at a block."""
        self._hit.add((rule, address, branch))

    def decline(self, address: Address, reason: Reason) -> None:
        """A call at a block was left alone."""
        calls = self._declined.setdefault(reason, {})
        calls[address] = calls.get(address, 0) + 1

    def add_nonfinite(self, count: Tensor) -> None:
        """Results that were not finite, (), counted on their device."""
        if count.device in self._nonfinite:
            self._nonfinite[count.device] += count
        else:
            self._nonfinite[count.device] = count

    def notes(self, blocks: Sequence[Block] | None = None) -> list[str]:
        """What was left alone, where and why, in sentences; of these blocks only, if given."""
        concerned = {block.address for block in (self._selected if blocks is None else blocks)}
        missed = [block for block in self._blocks if block.address in concerned - self.announced]
        sentences = [f"Never came to {describe(missed)}: {SKIPPED}."] if self.passes and missed else []
        if self.distrusted:
            sentences.append(f"Left alone after the first call of the model: {MISCOUNTED}.")
        for reason, calls in self._declined.items():
            where = [b for b in self._blocks if b.address in calls and (blocks is None or b in blocks)]
            if where:
                count = sum(calls[block.address] for block in where)
                sentences.append(f"Left alone in {count} calls at {describe(where)}: {reason.value}.")
        return sentences

    def report(self) -> None:
        """One line at the end of a run, and one more if something was not finite."""
        if self._plan.off:
            return
        rules = "; ".join(map(str, self._plan.rules))
        log.info(" ".join((f"Circulation: {rules}: {self._extent(range(len(self._plan.rules)))}.", *self.notes())))
        if bad := self._num_nonfinite():
            log.warning(
                "Circulation: %d attention results were not finite and were replaced by the model's own. "
                "Bring alpha nearer to 1 or beta nearer to 0, or run the model in a wider precision.",
                bad,
            )

    def statuses(self) -> Iterator[tuple[str, str]]:
        """For each node that added a rule: its id, and what came of its rule in this run, in a line."""
        for number, rule in enumerate(self._plan.rules):
            if rule.node is not None:
                yield rule.node, " ".join(self._status(number))

    def _status(self, number: int) -> Iterator[str]:
        rule = self._plan.rules[number]
        if rule.off:
            yield "Off: the model is left as it is."
        else:
            yield f"{self._extent([number])}." if any(n == number for n, *_ in self._hit) else "No block hit."
            blocks = {block.address for block in rule.blocks}
            if overruled := {address for n, address, _ in self._hit if n > number and address in blocks}:
                yield f"Nearer to the sampler another Circulation node decides at {len(overruled)} of its {len(blocks)} blocks."
            yield from self.notes(rule.blocks)
            if bad := self._num_nonfinite():
                yield f"{bad} results were not finite and were left as they were."

    def _num_nonfinite(self) -> int:
        return sum(int(count) for count in self._nonfinite.values())

    def _extent(self, rules: Sequence[int]) -> str:
        """How many blocks, which steps and which branches these rules have acted on."""
        hit = [(address, branch) for rule, address, branch in self._hit if rule in rules]
        blocks = {address for address, _ in hit}
        branches = " and ".join(b for b in (POSITIVE, NEGATIVE) if any(b == branch for _, branch in hit)) or "no branch"
        return f"{len(blocks)} of {len(self._blocks)} blocks hit, {self._steps(rules)}, {branches}"

    def _steps(self, rules: Sequence[int]) -> str:
        """The steps at which one of these rules acts, as 'steps 3 to 7 of 20'."""
        total = len(self._sigmas) - 1
        steps = [
            step
            for step, sigma in enumerate(self._sigmas[:-1], 1)
            if any(a.number in rules and self._plan.changes_a_block(a) for a in self._plan.active_at(sigma))
        ]
        if len(steps) == total:
            return f"all {total} steps"
        if not steps:
            return f"none of {total} steps"
        if steps == list(range(steps[0], steps[-1] + 1)):
            return f"steps {steps[0]} to {steps[-1]} of {total}"
        return f"steps {', '.join(map(str, steps))} of {total}"
