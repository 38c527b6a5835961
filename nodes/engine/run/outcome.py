"""What came of a run, in words for the log, the nodes and the records."""

import logging
import math
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import Enum

import torch
from torch import Tensor

from ..choices import BOTH, NEGATIVE, POSITIVE, UNKNOWN
from ..records.record import ALL_STEPS, FIRST_STEP, AttentionChange
from ..records.steps import StepFollower
from ..rules.blocks import Address, Block, describe
from ..rules.plan import Plan
from ..text import ascii_line

log = logging.getLogger("circulation")


class Reason(Enum):
    """Why an attention was left alone."""

    UNEQUAL = "queries and keys differ in number there (HyperTile, token merging or a cache of keys)"
    REPLACED = "another node replaces the self-attention there (such as PAG or SAG)"
    UNEVEN = "the rows there do not divide into positive and negative"
    UNKNOWN = "another node runs the model without saying which rows are positive or negative: choose branches 'both'"
    TILES = (
        "another node hands several tiles to the model at once, and which rows are positive or negative cannot be told: "
        "choose branches 'both', or one tile at a time"
    )
    SCALED = "the attention there has a scale of its own, which input space does not know: choose value space"
    TRAINING = "gradients are being taken"
    NO_IMAGE = "which of the tokens there are the image's could not be told: set tokens to 'all'"
    NO_OPTIONS = "another node runs those blocks in its own way, without ComfyUI's options (such as TeaCache)"


MISCOUNTED = (
    "another node skips or adds attentions, and in this version of ComfyUI the blocks of this model are told apart by counting them"
)
SKIPPED = "another node skips those blocks or runs them in its own way"
NOT_ASKED = "The model's attention never came past Circulation: another node runs the model in its own way (docs/packs.md lists some)."
COMPILED = (
    "The compiled model never came past Circulation: it was compiled before Circulation was there. Restart ComfyUI, and "
    "sample with Circulation first; or take the compile node out."
)


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
        self._remarks: dict[str, set[Address]] = {}
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

    def remark(self, address: Address, remark: str) -> None:
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

    def notes(self, blocks: Sequence[Block] | None = None) -> list[str]:
        """What was left alone, where and why, in sentences; of these blocks only, if given."""
        concerned = {block.address for block in (self._selected if blocks is None else blocks)}
        missed = [block for block in self._blocks if block.address in concerned - self.announced]
        sentences = []
        if self.answered and not self.asked:
            sentences.append(COMPILED if self.compiled else NOT_ASKED)
        elif self.answered and missed:
            sentences.append(f"Never came to {describe(missed)}: {SKIPPED}.")
        if self.distrusted:
            sentences.append(f"Left alone after the first call of the model: {MISCOUNTED}.")
        for reason, calls in self._declined.items():
            if where := self._among(calls, blocks):
                count = sum(calls[block.address] for block in where)
                sentences.append(f"Left alone in {count} calls at {describe(where)}: {reason.value}.")
        for remark, addresses in self._remarks.items():
            if where := self._among(addresses, blocks):
                sentences.append(f"At {describe(where)} {remark}.")
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
        stopped = ["Stopped early."] if self.stopped else []
        causes = [] if self._hit else [why for number in numbers if (why := self._why_nothing(number))]
        level = logging.INFO if self._hit or self.stopped else logging.WARNING
        log.log(level, "Circulation: %s", ascii_line(" ".join((*stopped, line, *dict.fromkeys(causes), *self.notes()))))
        for count, what in self._nonfinite_results():
            log.warning(
                "Circulation: %d attention results were not finite and were %s. "
                "Bring alpha nearer to 1 or beta nearer to 0, or run the model in a wider precision.",
                count,
                what,
            )

    def statuses(self) -> Iterator[tuple[str, str, str]]:
        """For each node that added a rule: its id, what came of its rule in this run, in a line, and the blocks that it hit."""
        for number, rule in enumerate(self._plan.rules):
            if rule.node is not None:
                yield rule.node, " ".join(self._status(number)), describe(self._among(self._blocks_hit([number]), None))

    def _status(self, number: int) -> Iterator[str]:
        rule = self._plan.rules[number]
        if self.stopped:
            yield "Stopped early."
        if rule.off:
            yield "Off: the model is left as it is."
            return
        hit = self._blocks_hit([number])
        method = f", {rule.one_pass}" if rule.one_pass else ""
        yield f"{self._extent([number])}{method}." if hit else "No block hit."
        if change := self.attention_change([number]):
            yield f"{change}."
        blocks = {block.address for block in rule.blocks}
        if overruled := {address for n, address, _ in self._hit if n > number and address in blocks}:
            yield f"Nearer to the sampler another Circulation node decides at {len(overruled)} of its {len(blocks)} blocks."
        elif not hit and (why := self._why_nothing(number)):
            yield why
        yield from self.notes(rule.blocks)
        for count, what in self._nonfinite_results():
            yield f"{count} results were not finite and were {what}."

    def _why_nothing(self, number: int) -> str | None:
        """Why a rule hit no block, where that is not said by `notes`."""
        rule = self._plan.rules[number]
        if rule.off or (self.stopped and not self._evaluations):
            return None
        if not self._evaluations:
            return "The sampler had no step to do."
        active = (active for sigma in self._asked_sigmas() for active in self._plan.active_at(sigma) if active.number == number)
        if not any(map(self._plan.changes_a_block, active)):
            return "Its start, end and schedule cover no step of this run."
        if self._branches and rule.branches != BOTH and rule.branches not in self._branches:
            reason = " (cfg 1 leaves it out)" if rule.branches == NEGATIVE else ""
            return f"The model was never asked about the {rule.branches} prompt{reason}."
        return None

    def _asked_sigmas(self) -> list[float]:
        return [float(sigma) for sigma in self._evaluations]

    def _nonfinite_results(self) -> Iterator[tuple[int, str]]:
        """How many results were not finite, and what was done with them."""
        replaced = (*self._replaced.values(), *self._replaced_now.values())
        for counts, what in ((replaced, "replaced by the model's own"), (self._nonfinite.values(), "used as they were")):
            if total := sum(map(int, counts)):
                yield total, what

    def _extent(self, rules: Sequence[int]) -> str:
        """How many blocks, which steps and which branches these rules have acted on."""
        acted = {branch for rule, _, branch in self._hit if rule in rules}
        branches = " and ".join(b for b in (POSITIVE, NEGATIVE) if acted & {b, UNKNOWN}) or "no branch"
        return f"{len(self._blocks_hit(rules))} of {len(self._blocks)} blocks hit, {self._steps(rules)}, {branches}"

    def _blocks_hit(self, rules: Collection[int]) -> set[Address]:
        return {address for rule, address, _ in self._hit if rule in rules}

    def _steps(self, rules: Sequence[int]) -> str:
        """The steps at which one of these rules acted, as 'steps 3 to 7 of 20'."""
        total, places, follower = len(self._sigmas) - 1, [], StepFollower(self._sigmas)
        for evaluation, sigma in enumerate(self._asked_sigmas()):
            place = follower.place(sigma)
            places.append(follower.correct(place, sigma, self._reported[evaluation]) if evaluation in self._reported else place)
        hit = set().union(*(self._hit_evaluations[rule] for rule in rules)) - {-1}
        steps = sorted({math.floor(places[evaluation]) + 1 for evaluation in hit})
        if not steps:
            return f"none of {total} steps"
        if len(steps) == total:
            return f"all {total} steps" if total > 1 else "the only step"
        if len(steps) == 1:
            return f"step {steps[0]} of {total}"
        if steps == list(range(steps[0], steps[-1] + 1)):
            return f"steps {steps[0]} to {steps[-1]} of {total}"
        return f"steps {', '.join(map(str, steps))} of {total}"


def _add(counts: dict[torch.device, Tensor], count: Tensor) -> None:
    if count.device in counts:
        counts[count.device] += count
    else:
        counts[count.device] = count.clone()
