"""What came of a run, in phrases for the log, the nodes and the records."""

import logging
import math
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from ..choices import BOTH, NEGATIVE, POSITIVE, UNKNOWN
from ..phrases import Phrase
from ..records.record import ALL_STEPS, FIRST_STEP, AttentionChange
from ..records.steps import StepFollower
from ..rules.blocks import Address, Block, describe
from ..rules.plan import Plan
from ..text import ascii_line

log = logging.getLogger("circulation")


class Reason(Enum):
    """Why an attention was left alone: keys of phrases."""

    UNEQUAL = "unequal"
    REPLACED = "otherNode"
    UNEVEN = "uneven"
    UNKNOWN = "unknownRows"
    TILES = "tiles"
    SCALED = "scaled"
    TRAINING = "training"
    NO_IMAGE = "noImage"
    NO_OPTIONS = "noOptions"


class Remark(NamedTuple):
    """What is to be said about a call: the key of a phrase, and the value in it."""

    key: str
    value: object


class Outcome:
    """Written during the run, by several threads where the model is split over devices; read when it has ended."""

    def __init__(self, plan: Plan, blocks: Sequence[Block], selected: Iterable[Block], sigmas: Sequence[float]):
        """`blocks` are all of the model in execution order, `selected` those of any rule or probe."""
        self.announced: set[Address] = set()
        self.answered = 0  # evaluations that ended
        self.distrusted = False
        self.asked = False  # whether any attention of the model came past us
        self.compiled = False
        self.stopped = False
        self._plan = plan
        self._blocks = tuple(blocks)
        self._selected = tuple(selected)
        self._sigmas = tuple(sigmas)
        self._lock = threading.Lock()
        self._evaluations: list[Tensor] = []  # the sigma of each, on its device
        self._reported: dict[int, int] = {}  # the step of an evaluation, where the sampler says it
        self._branches: set[str] = set()
        self._hit: set[tuple[int, Address, str]] = set()  # rule, block, branch
        self._hit_evaluations: dict[int, set[int]] = defaultdict(set)  # of each rule
        self._changes: dict[int, list[Tensor]] = defaultdict(list)  # by each rule, how far rows are from the model's own
        self._declined: dict[Reason, dict[Address, int]] = {}
        self._remarks: dict[Remark, set[Address]] = {}
        self._nonfinite: dict[torch.device, Tensor] = {}
        self._replaced: dict[torch.device, Tensor] = {}  # such results too, but the model's own took their place
        self._replaced_now: dict[torch.device, Tensor] = {}  # in the evaluation that goes on

    def begin_evaluation(self, sigma: Tensor) -> None:
        """The sampler asks the model; `sigma` is (), and is not read yet."""
        self._evaluations.append(sigma)

    def end_evaluation(self, answer: Tensor) -> None:
        """The model has answered; `answer` is what the sampler gets. If that is not finite, the results that were replaced
        had nothing finite to be replaced by: the model's own were not either, and alpha and beta are not to blame.
        """
        self.answered += 1
        with self._lock:
            for device, count in self._replaced_now.items():
                _add(self._replaced, count * torch.isfinite(answer.sum()).to(device, non_blocking=True))
            self._replaced_now.clear()

    def step_done(self, step: int) -> None:
        """The sampler says that its last evaluation was for this step."""
        self._reported[len(self._evaluations) - 1] = step

    def hit(self, rule: int, address: Address, branch: str) -> None:
        """A rule changed the rows of a branch at a block."""
        with self._lock:
            self._hit.add((rule, address, branch))
            self._hit_evaluations[rule].add(len(self._evaluations) - 1)

    def announce(self, address: Address, branches: Collection[str]) -> None:
        """An attention over the image was announced, for these branches."""
        with self._lock:
            self.announced.add(address)
            self._branches.update((POSITIVE, NEGATIVE) if UNKNOWN in branches else branches)

    def decline(self, address: Address, reason: Reason) -> None:
        """A call at a block was left alone."""
        with self._lock:
            calls = self._declined.setdefault(reason, {})
            calls[address] = calls.get(address, 0) + 1

    def remark(self, address: Address, remark: Remark) -> None:
        """Something is to be said about the calls at a block that were changed."""
        with self._lock:
            self._remarks.setdefault(remark, set()).add(address)

    def acts_first(self, rules: Iterable[int | None]) -> bool:
        """Whether this is the first evaluation in which one of these rules, which have hit, acts."""
        return any(len(self._hit_evaluations[rule]) == 1 for rule in rules if rule is not None)

    def add_change(self, rules: Sequence[int | None], change: Tensor) -> None:
        """How far each row of a call is from the model's own, (rows,) on its device; `rules` decided on equal shares of them."""
        with self._lock:
            for rule, share in zip(rules, change.chunk(len(rules))):
                assert rule is not None
                self._changes[rule].append(share)

    def attention_change(self, rules: Iterable[int] | None = None) -> AttentionChange | None:
        """What some rules, or all, have changed in this run; None where that is not known. Read back from the device here alone."""
        known = [rule for rule in (range(len(self._plan.rules)) if rules is None else rules) if rule in self._changes]
        changes = [change for rule in known for change in self._changes[rule]]
        by_device = [torch.cat([c for c in changes if c.device == device]).cpu() for device in {c.device for c in changes}]
        median = float(torch.cat(by_device).nanquantile(0.5)) if by_device else math.nan
        if not math.isfinite(median):
            return None
        return AttentionChange(median, FIRST_STEP if any(self._plan.rules[rule].circulation.one_call for rule in known) else ALL_STEPS)

    def add_nonfinite(self, count: Tensor, replaced: bool) -> None:
        """Results that were not finite, (), counted on their device; `replaced` if the model's own took their place."""
        with self._lock:
            _add(self._replaced_now if replaced else self._nonfinite, count)

    def notes(self, blocks: Sequence[Block] | None = None) -> list[Phrase]:
        """What was left alone, where and why, in sentences; of these blocks only, if given."""
        concerned = {block.address for block in (self._selected if blocks is None else blocks)}
        missed = [block for block in self._blocks if block.address in concerned - self.announced]
        sentences: list[Phrase] = []
        if self.answered and not self.asked:
            sentences.append(Phrase("compiledBefore" if self.compiled else "notAsked"))
        elif self.answered and missed:
            sentences.append(Phrase("neverCame", blocks=describe(missed)))
        if self.distrusted:
            sentences.append(Phrase("miscounted"))
        for reason, calls in self._declined.items():
            if where := self._among(calls, blocks):
                count = sum(calls[block.address] for block in where)
                sentences.append(Phrase("leftAlone", count=count, blocks=describe(where), why=Phrase(reason.value)))
        for remark, addresses in self._remarks.items():
            if where := self._among(addresses, blocks):
                sentences.append(Phrase("remark", blocks=describe(where), remark=Phrase(remark.key, value=remark.value)))
        return sentences

    def _among(self, addresses: Collection[Address], blocks: Sequence[Block] | None) -> list[Block]:
        """Those of `blocks`, or of all if that is None, that have one of these addresses."""
        return [block for block in self._blocks if block.address in addresses and (blocks is None or block in blocks)]

    def report(self) -> None:
        """One line at the end of a run, a warning if nothing was hit, and one more if something was not finite."""
        if self._plan.off:
            return
        numbers = range(len(self._plan.rules))
        line = f"{'; '.join(map(str, self._plan.rules))}: {self._extent(numbers)}."
        stopped = [Phrase("stopped")] if self.stopped else []
        causes = [] if self._hit else [why for number in numbers if (why := self._why_nothing(number))]
        level = logging.INFO if self._hit or self.stopped else logging.WARNING
        log.log(level, "Circulation: %s", ascii_line(" ".join((*stopped, line, *dict.fromkeys(causes), *self.notes()))))
        for count, fate in self._nonfinite_results():
            log.warning(
                "Circulation: %d attention results were not finite and were %s. "
                "Bring alpha nearer to 1 or beta nearer to 0, or run the model in a wider precision.",
                count,
                fate,
            )

    def statuses(self) -> Iterator[tuple[str, list[Phrase], str]]:
        """For each node that added a rule: its id, what came of its rule in this run, in sentences, and the blocks that it hit."""
        for number, rule in enumerate(self._plan.rules):
            if rule.node is not None:
                yield rule.node, list(self._status(number)), describe(self._among(self._blocks_hit([number]), None))

    def _status(self, number: int) -> Iterator[Phrase]:
        rule = self._plan.rules[number]
        if self.stopped:
            yield Phrase("stopped")
        if rule.off:
            yield Phrase("off")
            return
        hit = self._blocks_hit([number])
        if not hit:
            yield Phrase("noBlockHit")
        elif rule.one_pass:
            yield Phrase("hitInOnePass", extent=self._extent([number]), method=rule.one_pass)
        else:
            yield Phrase("hit", extent=self._extent([number]))
        if change := self.attention_change([number]):
            yield change.sentence
        blocks = {block.address for block in rule.blocks}
        if overruled := {address for n, address, _ in self._hit if n > number and address in blocks}:
            yield Phrase("overruled", overruled=len(overruled), all=len(blocks))
        elif not hit and (why := self._why_nothing(number)):
            yield why
        yield from self.notes(rule.blocks)
        for count, fate in self._nonfinite_results():
            yield Phrase("notFinite", count=count, fate=fate)

    def _why_nothing(self, number: int) -> Phrase | None:
        """Why a rule hit no block, where that is not said by `notes`."""
        rule = self._plan.rules[number]
        if rule.off or (self.stopped and not self._evaluations):
            return None
        if not self._evaluations:
            return Phrase("nothingSampled")
        active = (active for sigma in self._asked_sigmas() for active in self._plan.active_at(sigma) if active.number == number)
        if not any(map(self._plan.changes_a_block, active)):
            return Phrase("noStepCovered")
        if self._branches and rule.branches != BOTH and rule.branches not in self._branches:
            return Phrase("noNegative" if rule.branches == NEGATIVE else "noPositive")
        return None

    def _asked_sigmas(self) -> list[float]:
        return [float(sigma) for sigma in self._evaluations]

    def _nonfinite_results(self) -> Iterator[tuple[int, Phrase]]:
        """How many results were not finite, and what was done with them."""
        replaced = (*self._replaced.values(), *self._replaced_now.values())
        for counts, fate in ((replaced, "replaced"), (self._nonfinite.values(), "used")):
            if total := sum(map(int, counts)):
                yield total, Phrase(fate)

    def _extent(self, rules: Sequence[int]) -> Phrase:
        """How many blocks, which steps and which branches these rules have acted on."""
        acted = {branch for rule, _, branch in self._hit if rule in rules}
        branches = " and ".join(b for b in (POSITIVE, NEGATIVE) if acted & {b, UNKNOWN}) or "no branch"
        hit = len(self._blocks_hit(rules))
        return Phrase("extent", hit=hit, all=len(self._blocks), steps=self._steps(rules), branches=Phrase(branches))

    def _blocks_hit(self, rules: Collection[int]) -> set[Address]:
        return {address for rule, address, _ in self._hit if rule in rules}

    def _steps(self, rules: Sequence[int]) -> Phrase:
        """The steps at which one of these rules acted, as 'steps 3 to 7 of 20'."""
        total, places, follower = len(self._sigmas) - 1, [], StepFollower(self._sigmas)
        for evaluation, sigma in enumerate(self._asked_sigmas()):
            place = follower.place(sigma)
            places.append(follower.correct(place, sigma, self._reported[evaluation]) if evaluation in self._reported else place)
        hit = set().union(*(self._hit_evaluations[rule] for rule in rules)) - {-1}
        steps = sorted({math.floor(places[evaluation]) + 1 for evaluation in hit})
        if not steps:
            return Phrase("noStep", total=total)
        if len(steps) == total:
            return Phrase("allSteps", total=total) if total > 1 else Phrase("onlyStep")
        if len(steps) == 1:
            return Phrase("oneStep", step=steps[0], total=total)
        if steps == list(range(steps[0], steps[-1] + 1)):
            return Phrase("stepsFromTo", first=steps[0], last=steps[-1], total=total)
        return Phrase("someSteps", steps=", ".join(map(str, steps)), total=total)


def _add(counts: dict[torch.device, Tensor], count: Tensor) -> None:
    if count.device in counts:
        counts[count.device] += count
    else:
        counts[count.device] = count.clone()
