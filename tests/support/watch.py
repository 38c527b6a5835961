"""Every attention call of a model, shown to a test, which may put a result in the place of the model's.

Nothing here is shared with the engine. In a UNet the patches in front of its attentions say which comes next, in a transformer
hooks on the modules that make the calls.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from comfy.patcher_extension import WrappersMP

from . import transformers

KEY = "optimized_attention_override"


class Outline(NamedTuple):
    """An attention call without its tensors."""

    block: str | None
    shape: tuple[int, ...]  # of q in heads, (B, H, N, d)
    keys: int
    conditions: tuple[int, ...]
    doubled: bool


@dataclass(frozen=True)
class Attention:
    """One attention call, with its tensors split in heads."""

    block: str | None  # our name of it, None where it is not over the image
    q: torch.Tensor  # (B, H, N, d)
    k: torch.Tensor
    v: torch.Tensor
    mask: torch.Tensor | None  # broadcastable to (B, H, N, N)
    x: torch.Tensor | None  # what a self-attention of a UNet attends to, (B, N, C)
    conditions: tuple[int, ...]  # of the chunks of the batch: 0 positive and 1 negative, as KSampler orders them
    doubled: bool  # Circulation's own call: its heads are larger than those of the model's call before it
    place: int = 0  # of the first query among the keys

    @property
    def outline(self) -> Outline:
        return Outline(self.block, tuple(self.q.shape), self.k.shape[2], self.conditions, self.doubled)


class Module:
    """A module that attends, while it runs."""

    def __init__(self, labels: list[str], x: torch.Tensor | None = None):
        self.x = x
        self._labels = labels  # of its attentions over the image, which come first
        self._head_dim, self._calls = 0, 0  # as yet unknown
        self.asked = self._queries = self._keys = 0  # queries before the call, of an attention that asks in groups, and its own size

    def next(self, head_dim: int, queries: int, keys: int, in_groups: bool) -> tuple[str | None, bool]:
        """Of the next call the block, and whether it is Circulation's own. `in_groups`: parts of the queries come one after the other."""
        self._head_dim = self._head_dim or head_dim
        doubled = head_dim > self._head_dim
        if not doubled:
            goes_on = in_groups and keys == self._keys and 0 < self.asked + self._queries <= keys - queries
            self.asked, self._queries, self._keys = (self.asked + self._queries if goes_on else 0), queries, keys
            self._calls += not goes_on
        return (self._labels[self._calls - 1] if self._calls <= len(self._labels) else None), doubled


def watch(model, see: Callable[[Attention, torch.Tensor], torch.Tensor | None], name: str | None = None):
    """A clone of the MODEL whose every attention call is shown to `see` with its output, (B, H, N, d).

    What `see` returns, if anything, takes the place of the output. `name` is that of a small transformer. An override that the
    model has computes the calls; what is installed on the clone afterwards comes before all this.
    """
    clone = model.clone()
    running: list[Module] = []
    small = None if name is None else transformers.FAMILIES[name]
    follow_unet(clone, running) if small is None else follow_transformer(clone, running, small)
    options = clone.model_options["transformer_options"]
    previous = options.get(KEY)

    def override(func, q, k, v, heads, *args, **kwargs):
        plain = (func if previous is None else lambda *a, **kw: previous(func, *a, **kw))(q, k, v, heads, *args, **kwargs)
        mask = kwargs.get("mask", args[0] if args else None)
        *qkv, mask = in_heads(q, k, v, heads, mask, kwargs.get("skip_reshape", False))
        queries, keys = qkv[0].shape[2], qkv[1].shape[2]
        in_groups = small is not None and small.queries == "in groups"
        another = small is not None and small.in_parts and (queries == keys or queries != math.prod(small.latents[0][1:]))
        block, doubled = running[-1].next(qkv[0].shape[-1], queries, keys, in_groups) if running and not another else (None, False)
        conditions = tuple(kwargs["transformer_options"]["cond_or_uncond"])
        place = running[-1].asked if in_groups and running else keys - queries if small is not None and small.queries == "last" else 0
        attention = Attention(block, *qkv, mask, running[-1].x if block else None, conditions, doubled, place)
        keep = kwargs.get("skip_output_reshape", False)
        new = see(attention, plain if keep else plain.unflatten(-1, (heads, -1)).transpose(1, 2))
        if new is None:
            return plain
        return new.to(plain.dtype) if keep else new.transpose(1, 2).flatten(-2).to(plain.dtype)

    options[KEY] = override
    return clone


def record(model, name: str | None = None) -> tuple:
    """A watched clone of the MODEL, and the list that its attention calls are written to."""
    calls: list[Outline] = []
    return watch(model, lambda attention, plain: calls.append(attention.outline), name), calls


def image_positions(model, name: str, **kwargs) -> dict[int, torch.Tensor]:
    """Which tokens of the first attention hold the image, by their number: those that differ when the noise does."""

    def queries(seed):
        first = {}

        def see(attention, plain):
            if attention.block:
                first.setdefault(attention.q.shape[2], attention.q)

        transformers.sample(watch(model, see, name), name, steps=1, seed=seed, **kwargs)
        return first

    one, other = queries(0), queries(1)
    return {tokens: (one[tokens] != other[tokens]).any(-1).any(1).any(0) for tokens in one}


def where_the_image_is(model: Callable, name: str, changed: dict | None = None, **kwargs) -> dict[int, torch.Tensor]:
    """`image_positions` of a small transformer that `model(name, **changed)` builds.

    Without the refiners of Lumina: they carry the noise into the tokens that fill up the image's.
    """
    alone = {"n_refiner_layers": 0} if name in ("lumina2", "z_image") else {}
    return image_positions(model(name, **(changed or {}), **alone), name, **kwargs)


def follow_unet(clone, running: list[Module]) -> None:
    def self_attention(n, context, value, extra_options):
        running[:] = [Module([".".join(map(str, (*extra_options["block"], extra_options["block_index"])))], value)]
        return n, context, value

    def cross_attention(n, context, value, extra_options):
        running.clear()
        return n, context, value

    clone.set_model_attn1_patch(self_attention)
    clone.set_model_attn2_patch(cross_attention)


def follow_transformer(clone, running: list[Module], small: transformers.Small) -> None:
    def leave(*_):
        running.pop()

    def sample(executor, *args, **kwargs):
        running.clear()
        handles = []
        for module, *labels in labelled(executor.class_obj.model_patcher.model.diffusion_model, small):
            times = itertools.cycle(labels)
            handles.append(module.register_forward_pre_hook(lambda *_, times=times: running.append(Module(next(times)))))
            handles.append(module.register_forward_hook(leave))
        try:
            return executor(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()

    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "watch", sample)


def labelled(network, small: transformers.Small):
    """Each module that attends over the image, with our names of its attentions; several times where it runs several times."""
    if small.family.startswith("Stable_Cascade"):
        yield from labelled_in_levels(network)
        return
    for path, (stage, turns) in small.own.items():
        for index, module in enumerate(network.get_submodule(path).children()):
            several = turns > 1 and (not hasattr(module, "x_block") or module.x_block.x_block_self_attn)
            yield module, [f"{stage}.{index}.{turn}" for turn in range(turns)] if several else [f"{stage}.{index}"]


def labelled_in_levels(network):
    """Stable Cascade runs the modules of a level again and again, and we count on."""
    for side in ("down", "up"):
        names = (f"{side}.{index}" for index in itertools.count())
        for level, again in zip(getattr(network, f"{side}_blocks"), getattr(network, f"{side}_repeat_mappers")):
            attending = [module for module in level if type(module).__name__ == "AttnBlock"]
            times = [[[next(names)] for _ in attending] for _ in range(len(again) + 1)]
            yield from ((module, *labels) for module, *labels in zip(attending, *times))


def in_heads(q, k, v, heads, mask=None, skip_reshape=False):
    """(q, k, v, mask) as (B, H, N, d), each query head with its own keys."""
    if not skip_reshape:
        head_dim = q.shape[-1] // heads
        q, k, v = (t.reshape(*t.shape[:2], -1, head_dim).transpose(1, 2) for t in (q, k, v))
    k, v = (t.repeat_interleave(heads // t.shape[1], dim=1) for t in (k, v))
    if mask is not None:
        mask = mask[None, None] if mask.ndim == 2 else mask[:, None] if mask.ndim == 3 else mask
    return q, k, v, mask
