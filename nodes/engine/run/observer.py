"""A probe: what one Stability Probe node adds to a model, and what it sees during a run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..choices import BOTH, IMAGE_TOKENS, MEASURES, NEGATIVE, UNKNOWN
from ..records.chart import by_block, point
from ..records.record import AXIS_BRANCHES, LiveRecord, RunInfo, RunRecord, by_stage, stack
from ..records.steps import percent_at
from ..rules.blocks import Address, Block


class Chunk(NamedTuple):
    """An equal share of a batch's rows."""

    branch: str
    main: bool = True  # whether it is the guider's positive or negative, and no third condition of its
    prompt: object = None  # what tells it apart from the other prompts of its branch


@dataclass(frozen=True, eq=False)
class Probe:
    space: str
    every_n_steps: int
    blocks: tuple[Block, ...]
    branches: str
    label: str
    record: LiveRecord
    send: Callable[[dict], None] = lambda event: None  # receives a small event at each measured step
    tokens: str = IMAGE_TOKENS

    def __post_init__(self):
        if self.every_n_steps < 1:
            raise ValueError(f"every_n_steps is {self.every_n_steps} and must be 1 or more.")


class Observer:
    """One probe during one run.

    Of each evaluation it keeps the first pass, and in it one row for each branch: guidance that asks
    the model again (PAG, SLG), further context windows, and further prompts of a branch are left out
    and counted. `see` makes no synchronisation with the device; `begin_evaluation` and `finish` make one.
    """

    def __init__(self, probe: Probe, schedule: Sequence[float], blocks: Sequence[Block], percent_to_sigma: Callable[[float], float]):
        """`blocks` are all of the model."""
        self.probe = probe
        self.model_blocks = tuple(map(str, blocks))
        self._schedule = schedule
        self._percent_to_sigma = percent_to_sigma
        self._positions = {block.address: position for position, block in enumerate(probe.blocks)}
        self._measuring = False
        self._passes = 0
        self._values: Tensor | None = None
        self._measured: set[tuple[Address, str]] = set()  # in this evaluation
        self._prompts: dict[str, object] = {}  # the prompt that stands for each branch in this evaluation
        self._sigmas: list[float] = []
        self._steps: list[float] = []
        self._percents: list[float] = []
        self._evaluations: list[Tensor] = []
        self._sent_steps: set[int] = set()
        self.left_out: dict[str, int] = {}

    def begin_evaluation(self, sigma: float, step: float, certain: bool = True) -> None:
        """The sampler asks the model, at this sigma and at this place on the schedule, which may be corrected if it is not `certain`."""
        self._keep()
        self._measuring = self._wanted(step) or not certain
        self._passes = 0
        self._sigma, self._step = sigma, step

    def correct(self, step: float) -> None:
        """The place where the sampler says that it asked."""
        self._step = step

    def begin_pass(self) -> None:
        """Its answer takes one batch of model calls more."""
        self._passes += 1

    def wants(self, address: Address) -> bool:
        """Whether the next attention there is to be measured."""
        if not self._measuring or address not in self._positions:
            return False
        if self._passes > 1:
            self.leave_out("calls of further passes (guidance that asks the model again, or context windows)")
            return False
        return True

    def see(self, address: Address, chunks: Sequence[Chunk], measured: Tensor) -> None:
        """`measured` is (measure, row), float32."""
        images = measured.shape[1] // len(chunks)
        if self._values is None:
            shape = (len(MEASURES), len(self._positions), len(AXIS_BRANCHES), images)
            self._values = torch.full(shape, torch.nan, device=measured.device)
        elif self._values.shape[-1] != images:
            self.leave_out("calls on another number of images")
            return
        for position in reversed(range(len(chunks))):  # ComfyUI runs a branch's prompts last to first
            branch, main, prompt = chunks[position]
            if branch == UNKNOWN:
                self.leave_out("calls that do not say which rows are positive or negative")
                continue
            if self.probe.branches not in (BOTH, branch):
                continue
            if not main or self._prompts.setdefault(branch, prompt) != prompt:
                self.leave_out(f"calls of further {branch} prompts")
                continue
            if (address, branch) in self._measured:
                self.leave_out("further calls at the same block (tiles)")
                continue
            self._measured.add((address, branch))
            rows = measured[:, position * images : (position + 1) * images]
            self._values[:, self._positions[address], int(branch == NEGATIVE)] = rows

    def finish(self, info: RunInfo) -> None:
        """Hands over what was measured, also of a run that was cut short."""
        self._keep()
        self.probe.record.add(
            RunRecord(
                info=info,
                sigma=torch.tensor(self._sigmas),
                step=torch.tensor(self._steps),
                values=stack(self._evaluations, len(self._positions)),
                percent=torch.tensor(self._percents),
            )
        )

    def _wanted(self, step: float) -> bool:
        return math.floor(step) % self.probe.every_n_steps == 0

    def _keep(self) -> None:
        if self._values is None:
            return
        measured, self._values = self._values, None
        self._prompts.clear()
        self._measured.clear()
        if not self._wanted(self._step):
            return
        values = measured.cpu()
        self._evaluations.append(values)
        self._sigmas.append(self._sigma)
        self._steps.append(self._step)
        self._percents.append(percent_at(self._sigma, self._percent_to_sigma))
        if math.floor(self._step) not in self._sent_steps:
            self._sent_steps.add(math.floor(self._step))
            self.probe.send(self._event(values))

    def _event(self, values: Tensor) -> dict:
        stages = by_stage(block.stage for block in self.probe.blocks)
        return {
            "steps": len(self._schedule) - 1,
            "measures": list(MEASURES),
            "blocks": self.model_blocks,
            **point(values, stages, self._step, self._sigma),
            **by_block(values, tuple(map(str, self.probe.blocks)), self.model_blocks, self._percents[-1]),
        }

    def leave_out(self, what: str) -> None:
        """Counts calls that were not measured, and says what they were."""
        self.left_out[what] = self.left_out.get(what, 0) + 1
