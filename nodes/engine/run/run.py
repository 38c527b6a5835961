"""One sampling run: what happens to each attention call. What is said of it is in `outcome`."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Protocol

import torch
from torch import Tensor

from ..choices import IMAGE_TOKENS, INPUT_SPACE, NEGATIVE, POSITIVE, UNKNOWN, VALUE_SPACE
from ..method.fast.circulate import circulate
from ..method.fast.measures import measure_input, measure_values, relative_change
from ..method.fast.workspace import Workspace
from ..method.formula import ALL, WHOLE, Applied, Square, outside
from ..records.steps import StepFollower
from ..rules.blocks import Address, Block
from ..rules.plan import Plan, Segment
from ..rules.rule import Rule
from .observer import Chunk, Observer, Probe
from .outcome import Outcome, Reason, Remark

# The rows of a call, and what was applied to them
Results = list[tuple[slice, Applied | None]]

NOTHING = Square(slice(0, 0), slice(0, 0))


class Call(Protocol):
    """An attention call of the model, as `comfy.attention_call` gives it."""

    q: Tensor
    k: Tensor
    v: Tensor
    scaled: bool  # whether it has a scale of its own

    def plain(self, rows: slice = ALL, queries: slice = ALL) -> Tensor:
        """The model's own output in its layout, or that of some rows and queries."""

    def pass_on(self) -> Tensor:
        """The same as `plain`, of a call of which nothing else is asked afterwards."""

    def prepare_blend(self) -> Remark | None:
        """To be called first where a result is blended from two retrievals. Returns what there is to be said about it."""

    @property
    def pads_values(self) -> bool:
        """Whether `attend` pads values to the width of doubled heads."""

    @property
    def fusable(self) -> bool:
        """Whether a kernel of ours may take the place of `attend`."""

    def empty_output(self) -> Tensor:
        """A tensor in the layout of the output, with nothing in it."""

    def output_of(self, heads: Tensor) -> Tensor:
        """(B, H, L, d) in the layout of the output."""

    def size(self, tensor: Tensor) -> tuple[int, int]:
        """Rows of the batch and tokens of q, k or v."""

    def heads_of(self, tensor: Tensor) -> Tensor:
        """q, k or v as (B, H, L, d)."""

    def heads_of_output(self, tensor: Tensor) -> Tensor:
        """A tensor like the output as (B, H, L, d)."""

    def mask_of(self, rows: slice) -> Tensor | None:
        """The mask of some rows, broadcastable to (B, H, L, L)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: slice, rows: slice, queries: slice, workspace: Workspace) -> Tensor:
        """Ordinary attention with this call's options: q (B, h, N, D), k (B, h, L, D), v (B, h, L, d) -> (B, h, N, d).

        `heads`, `rows` and `queries` say which part of the call's mask belongs to them.
        """


@dataclass
class PendingAttention:
    """An attention over the image about to be computed, announced by what comes in front of it."""

    address: Address
    chunks: tuple[Chunk, ...]  # of the batch
    segments: tuple[Segment, ...]
    observers: tuple[Observer, ...]
    x: Tensor | None
    image: Square | None  # those tokens that are the image's, None where that is not known
    every: Square | None  # the tokens that are both queries and keys, None where that is not known

    def square_for(self, choice: str) -> Square:
        """The tokens that a choice of choices.TOKENS means here."""
        square = self.image if choice == IMAGE_TOKENS else self.every
        assert square is not None  # else `_objection` has declined the call
        return square

    def square_of(self, segment: Segment) -> Square:
        """The tokens that are circulated in the rows of a segment."""
        return NOTHING if segment.circulation is None else self.square_for(segment.circulation.tokens)

    @property
    def needs_image(self) -> bool:
        """Whether anybody asks for the image's tokens alone."""
        circulations = (segment.circulation for segment in self.segments if segment.circulation)
        return any(c.tokens == IMAGE_TOKENS for c in circulations) or any(o.probe.tokens == IMAGE_TOKENS for o in self.observers)


class _Stream:
    """What is pending in one thread on one device, and the memory that is used there."""

    def __init__(self):
        self.pending: PendingAttention | None = None
        self.workspace = Workspace()
        self._last: Address | None = None
        self._was_temporal = False

    def is_temporal(self, address: Address) -> bool:
        """Video UNets announce each address twice in a row, for the frames and then for time."""
        self._was_temporal = address == self._last and not self._was_temporal
        self._last = address
        return self._was_temporal


class Run:
    """Created when sampling starts, dropped when it ends.

    `begin_evaluation` and `end_evaluation` are called around each question of the sampler to the model, `begin_pass` before
    each batch of model calls that it takes to answer, `announce` in front of attentions, `attention` by each
    attention call. `announce` and `attention` read nothing back from the device, and may be called by a thread
    for each device.
    """

    def __init__(self, plan: Plan, observers: Sequence[Observer], blocks: Sequence[Block], sigmas: Sequence[float], video: bool):
        """`blocks` are all of the model, `sigmas` those of the sampler; `video` is for UNets that alternate with time."""
        self.plan = plan
        self.observers = tuple(observers)
        parts: list[Rule | Probe] = [*plan.rules, *(observer.probe for observer in self.observers)]
        selected = [block for part in parts for block in part.blocks]
        self.outcome = Outcome(plan, blocks, selected, sigmas)
        self._video = video
        self._follower = StepFollower(sigmas)
        self._sigma = self._place = 0.0
        self._conditions: tuple[tuple[str, bool], ...] = ()
        self._rows = 0
        self._unread_sigma: Tensor | None = None
        self._tiles = False
        self._streams: dict[tuple[int, torch.device], _Stream] = {}

    @property
    def idle(self) -> bool:
        """True where nothing can be changed or seen: then nothing is installed at all."""
        return self.plan.off and not self.observers

    def begin_evaluation(self, sigma: Tensor) -> None:
        """`sigma` is (B,); read back once, and only where somebody asks."""
        self.outcome.begin_evaluation(sigma.flatten()[0])
        # Other nodes may call the model without a pass. Its sigma is then read when it is needed.
        self._conditions, self._rows = (), 0
        self._unread_sigma = sigma if self.plan.limited_in_time else None
        if self.observers:
            self._sigma = float(sigma.flatten()[0])
            self._place = self._follower.place(self._sigma)
            for observer in self.observers:
                observer.begin_evaluation(self._sigma, self._place, self._follower.certain)

    def step_done(self, step: int) -> None:
        """The sampler says that its last evaluation was for this step."""
        self.outcome.step_done(step)
        if self.observers:
            self._place = self._follower.correct(self._place, self._sigma, step)
            for observer in self.observers:
                observer.correct(self._place)

    def begin_pass(self, sigma: Tensor, conditions: Sequence[tuple[str, bool]], rows: int) -> None:
        """`conditions` says of each its branch, and whether it is the guider's main one there; `rows` is the number of images."""
        self._conditions, self._rows = tuple(conditions), rows
        self._unread_sigma = sigma if self.plan.limited_in_time else None
        self._read_sigma()
        for observer in self.observers:
            observer.begin_pass()

    def end_evaluation(self, answer: Tensor) -> None:
        """`answer` is what the sampler gets, (B, …). Not called if the evaluation was cut short."""
        self.outcome.end_evaluation(answer)

    def announce(
        self, address: Address | None, device: torch.device, conditions: Sequence[int] = (), prompts: Sequence[object] = (),
        x: Tensor | None = None, image: Square | None = WHOLE, every: Square | None = WHOLE,
    ) -> None:  # fmt: skip
        """An attention comes next on a device; `address` is None for one that is not over the image.

        `conditions` and `prompts` say of each chunk of the batch to which condition and prompt it belongs,
        x (B, L, C) is what the attention gets where that is known. `image` is where the image's tokens are among the queries
        and the keys, and `every` where all those are that are both.
        """
        stream = self._stream(device)
        if stream.pending is not None:
            self.outcome.decline(stream.pending.address, Reason.REPLACED)
        stream.pending = None
        if address is None or self.outcome.distrusted or (self._video and stream.is_temporal(address)):
            return
        self._read_sigma()
        chunks = tuple(Chunk(*self._condition(c), prompt) for c, prompt in zip_longest(conditions, prompts[: len(conditions)]))
        chunks = chunks or (Chunk(UNKNOWN),)
        self.outcome.announce(address, [chunk.branch for chunk in chunks])
        segments = self._segments(address, chunks)
        observers = tuple(observer for observer in self.observers if observer.wants(address))
        if segments or observers:
            spaces = {s.circulation.rescale for s in segments if s.circulation} | {o.probe.space for o in observers}
            x_needed = x if INPUT_SPACE in spaces else None
            stream.pending = PendingAttention(address, chunks, segments, observers, x_needed, image, every)

    def attention(self, call: Call) -> Tensor:
        """What the model gets in place of the call's own output, in its layout and dtype."""
        self.outcome.asked = True
        stream = self._stream(call.q.device)
        pending, stream.pending = stream.pending, None
        if pending is None:
            return call.pass_on()
        if reason := self._objection(call, pending):
            self.outcome.decline(pending.address, reason)
            return call.pass_on()
        results: Results = []
        if pending.segments:
            self._note_hits(pending)
            out, results = self._circulated(call, pending, stream.workspace)
        else:
            out = call.plain()
        if pending.observers:
            if self._in_tiles(call, pending):
                for observer in pending.observers:
                    observer.leave_out("calls on several tiles at once")
            else:
                self._observe(call, out, results, pending, stream.workspace)
        return out

    def _read_sigma(self) -> None:
        if self._unread_sigma is not None:
            self.plan.set_sigma(float(self._unread_sigma.flatten()[0]))
            self._unread_sigma = None

    def _condition(self, position: int) -> tuple[str, bool]:
        """Branch of a condition, and whether it is the guider's main one there. ComfyUI's own order where nothing is known."""
        if position < len(self._conditions):
            return self._conditions[position]
        return (NEGATIVE if position == 1 else POSITIVE), True

    def _segments(self, address: Address, chunks: Sequence[Chunk]) -> tuple[Segment, ...]:
        if all(chunk.branch != UNKNOWN for chunk in chunks):
            return self.plan.segments(address, tuple(chunk.branch for chunk in chunks))
        positive, negative = (self.plan.segments(address, (branch,)) for branch in (POSITIVE, NEGATIVE))
        if positive == negative:
            return positive
        self.outcome.decline(address, Reason.UNKNOWN)
        return ()

    def _stream(self, device: torch.device) -> _Stream:
        key = threading.get_ident(), device
        if key not in self._streams:
            self._streams[key] = _Stream()
        return self._streams[key]

    def _in_tiles(self, call: Call, pending: PendingAttention) -> bool:
        """Whether a chunk holds several times the rows that the sampler asked about: other nodes put tiles into the batch.

        From the first such call on: the last tile may come alone, and would be the only one that is changed.
        """
        self._tiles = self._tiles or 0 < self._rows * len(pending.chunks) < call.q.shape[0]
        return self._tiles

    def _note_hits(self, pending: PendingAttention) -> None:
        for segment in pending.segments:
            if segment.circulation:
                for rule, chunk in zip(segment.rules, pending.chunks[segment.start : segment.stop]):
                    assert rule is not None
                    self.outcome.hit(rule, pending.address, chunk.branch)

    def _circulated(self, call: Call, pending: PendingAttention, workspace: Workspace) -> tuple[Tensor, Results]:
        plain = None
        if any(segment.circulation and not segment.circulation.one_call for segment in pending.segments):
            if remark := call.prepare_blend():
                self.outcome.remark(pending.address, remark)
            plain = call.plain()
        q, k, v = map(call.heads_of, (call.q, call.k, call.v))
        plain_heads = None if plain is None else call.heads_of_output(plain)
        rows_per_chunk = q.shape[0] // len(pending.chunks)
        out = out_heads = None
        if len(pending.segments) > 1 or pending.square_of(pending.segments[0]).queries != ALL:
            out = call.empty_output() if plain is None else torch.empty_like(plain)
            out_heads = call.heads_of_output(out)
        results: Results = []
        for segment in pending.segments:
            rows = slice(segment.start * rows_per_chunk, segment.stop * rows_per_chunk)
            square, applied = pending.square_of(segment), None
            if segment.circulation is not None:
                attend = partial(call.attend, rows=rows, queries=square.queries, workspace=workspace)
                place = rows, ALL, square.queries
                new, applied = circulate(
                    q[rows], k[rows], v[rows], _part(plain_heads, rows), attend, segment.circulation, _part(out_heads, *place),
                    workspace, _part(pending.x, rows), call.mask_of(rows), square, call.pads_values, call.fusable,
                )  # fmt: skip
                own = _part(plain_heads, *place)
                self._replace_nonfinite(new, own, applied.finite)
                self._measure_change(call, segment, new, own, rows, square.queries)
                if out is None:
                    out = call.output_of(new)
            results.append((rows, applied))
            for others in outside(square.queries, q.shape[2]):
                assert out_heads is not None
                rest = call.heads_of_output(call.plain(rows, others)) if plain_heads is None else plain_heads[rows, :, others]
                out_heads[rows, :, others] = rest
        assert out is not None
        return out, results

    def _replace_nonfinite(self, new: Tensor, plain: Tensor | None, finite: Tensor) -> None:
        """Image by image the model's own output where ours is not finite, if there is one; counted on the device."""
        if new.device.type == "cpu" and finite.all():  # which costs nothing to read there
            return
        self.outcome.add_nonfinite((~finite).sum(), replaced=plain is not None)
        if plain is not None:
            torch.where(finite, new, plain, out=new)

    def _measure_change(self, call: Call, segment: Segment, new: Tensor, plain: Tensor | None, rows: slice, queries: slice) -> None:
        """How far the result is from the model's own. Where that was not needed, it is computed in the first evaluation alone."""
        if plain is None and self.outcome.acts_first(segment.rules):
            plain = call.heads_of_output(call.plain(rows, queries))
        if plain is not None:
            self.outcome.add_change(segment.rules, relative_change(new, plain))

    def _observe(self, call: Call, out: Tensor, results: Results, pending: PendingAttention, workspace: Workspace) -> None:
        """Stability of what the model retrieved, after circulation if any acted."""
        q, k = call.heads_of(call.q), call.heads_of(call.k)
        measured = {}
        for space, choice in {(observer.probe.space, observer.probe.tokens) for observer in pending.observers}:
            if space == VALUE_SPACE:
                square = pending.square_for(choice)
                values = call.heads_of_output(out)[:, :, square.queries]
                measured[space, choice] = measure_values(q[:, :, square.queries], k[:, :, square.keys], values, workspace)
            else:
                assert pending.x is not None  # families that do not show it are refused by the node
                by_rows = [
                    measure_input(q[rows], k[rows], pending.x[rows], call.mask_of(rows), workspace, applied)
                    for rows, applied in results or [(slice(None), None)]
                ]
                measured[space, choice] = torch.cat(by_rows, dim=1)
        for observer in pending.observers:
            observer.see(pending.address, pending.chunks, measured[observer.probe.space, observer.probe.tokens])

    def _objection(self, call: Call, pending: PendingAttention) -> Reason | None:
        (rows, queries), (rows_of_keys, keys) = call.size(call.q), call.size(call.k)
        if rows != rows_of_keys or pending.every is None or (queries != keys and pending.every == WHOLE):
            return Reason.UNEQUAL
        if call.q.shape[0] % len(pending.chunks):
            return Reason.UNEVEN
        if len(pending.segments) > 1 and self._in_tiles(call, pending):
            return Reason.TILES
        if call.scaled and pending.x is not None:
            return Reason.SCALED
        if torch.is_grad_enabled() and any(t.requires_grad for t in (call.q, call.k, call.v)):
            return Reason.TRAINING
        if pending.image is None and pending.needs_image:
            return Reason.NO_IMAGE
        return None


def _part(tensor: Tensor | None, *slices: slice) -> Tensor | None:
    return None if tensor is None else tensor[slices]
