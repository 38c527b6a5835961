"""What a row of the table of transformers says, and how it is read."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from torch.nn import Module, ModuleDict

from ..phrases import Phrase
from ..rules.blocks import Address, Block

OLDEST = "0.3.75"  # the first version of ComfyUI that this pack runs in

TEXT_ONLY = Phrase("textOnly")
IMAGE_REFINER = Phrase("imageRefiner")
REFERENCE_REFINER = Phrase("referenceRefiner")

HEADS = ("num_heads", "n_heads", "heads", "n_local_heads", "num_attention_heads")
HEAD_SIZE = ("head_dim", "dim_head", "headdim")
WIDTH = ("hidden_size", "inner_dim", "img_attn_proj.in_features", "to_q.out_features")


@dataclass(frozen=True)
class Stage:
    """A run of blocks of the same kind.

    Of a block's attention calls the first `self_attention_calls` are over the image's own tokens, with or
    without those of the text; the others look elsewhere (cross-attention).
    """

    name: str
    modules: str | Callable[[Module], list[Module]]  # the path to what holds the blocks in the model, or what lists them
    attention: str  # the path in a block to the module that knows its heads
    kind: str | None = None  # ComfyUI's word for the blocks, in its options and slots
    self_attention_calls: Callable[[Module], int] = lambda block: 1
    attention_calls: int = 1
    left_alone: Phrase | None = None  # why, if all of them are
    needs: str | None = None  # the condition without which the model passes these blocks over

    def blocks(self, network: Module) -> list[Module]:
        """In execution order; none where this network lacks the stage."""
        if callable(self.modules):
            return self.modules(network)
        try:
            blocks = attrgetter(self.modules)(network) or ()
        except AttributeError:
            return []
        return list(blocks.values() if isinstance(blocks, ModuleDict) else blocks)


@dataclass(frozen=True)
class TransformerFamily:
    """One row of the table.

    `image` says where in a call's keys those of the image are: (forward, tokens, image_start) -> slice,
    which may lie outside of them if the call is not what it was taken for; `image_start` is where the model
    itself says that the image starts, if it does. `queries` says where among the keys those of the queries start,
    in families where keys can outnumber them: (forward, queries, keys) -> int, so far on that they do not fit if that
    is not known. `is_own`, (forward, queries, keys) -> bool,
    says whether a call is over the image where a block makes several that its turn does not tell apart. Which block
    calls is what ComfyUI says, where it does.
    Where not: `slots` says that blocks can be marked, `counted` that calls come in a fixed order.
    `hands_nothing_on` where the model calls its blocks without ComfyUI's options in some of its ways.
    `has_sound` where sound stands among the tokens: 'all' then means the image's. `since` is the first version of
    ComfyUI that has the class.
    """

    label: str
    stages: tuple[Stage, ...]
    image: Callable[..., slice]
    patch: Callable[[Module], Sequence[int]] = lambda module: pair(module.patch_size)
    slots: bool = False
    counted: bool = False
    queries: Callable[..., int] | None = None
    is_own: Callable[..., bool] | None = None
    has_sound: bool = False
    hands_nothing_on: bool = False
    since: str = OLDEST
    shows_input = False

    def attentions(self, network: Module) -> list[tuple[Block, Phrase | None]]:
        """Attentions in execution order, each with the reason why it is left alone if it is."""
        return [(block, stage.left_alone) for stage, *_, block in self._attentions(network)]

    def address_of_call(self, network: Module) -> dict[tuple, Address]:
        """The address of an attention by (kind, index, turn): kind and index of its block, and its turn in there."""
        return {
            (stage.kind, index, turn): block.address
            for stage, index, turn, block in self._attentions(network)
            if not stage.left_alone
        }

    def sequence(self, network: Module, address_of_call: Mapping[tuple, Address], conditions: Mapping) -> list[Address | None]:
        """The address of each attention call of the model in turn, None for those left alone."""
        return [
            None if stage.left_alone else address_of_call.get((stage.kind, index, turn))
            for stage in self.stages
            if stage.needs is None or conditions.get(stage.needs)
            for index in range(len(stage.blocks(network)))
            for turn in range(stage.attention_calls)
        ]

    def markable_blocks(self, network: Module) -> Iterator[tuple[str, int]]:
        """Kind and index of each block that can be marked."""
        for stage in self.stages:
            if self.slots and stage.kind and not stage.left_alone:
                yield from ((stage.kind, index) for index in range(len(stage.blocks(network))))

    def _attentions(self, network: Module) -> Iterator[tuple[Stage, int, int, Block]]:
        for stage in self.stages:
            for index, part in enumerate(stage.blocks(network)):
                turns = stage.self_attention_calls(part)
                for turn in range(turns):
                    heads = head_count_and_size(part.get_submodule(stage.attention))
                    yield stage, index, turn, Block(stage.name, index, turn if turns > 1 else None, *heads)


def head_count_and_size(attention: Module) -> tuple[int, int]:
    """The number of heads and their size, under whatever names the module keeps them."""
    count = _first_of(attention, HEADS)
    return count, _first_of(attention, HEAD_SIZE, default=0) or _first_of(attention, WIDTH) // count


def _first_of(module: Module, names: Sequence[str], default: int | None = None) -> int:
    for name in names:
        with contextlib.suppress(AttributeError):
            return attrgetter(name)(module)
    if default is None:
        raise AttributeError(f"{type(module).__name__} has none of {', '.join(names)}")
    return default


def pair(size: int | Sequence[int]) -> Sequence[int]:
    return (size, size) if isinstance(size, int) else size


def num_tokens(shape: Sequence[int], patch: Sequence[int]) -> int:
    """Tokens of a latent (B, C, …, H, W) cut into patches, which are filled up at its edges."""
    sides = list(shape[2:])
    sizes = [1] * (len(sides) - len(patch)) + list(patch)[-len(sides) :]
    return math.prod(math.ceil(side / size) for side, size in zip(sides, sizes))


# Where the image is


def everything(forward, tokens: int, image_start: int | None) -> slice:
    return slice(0, tokens)


def first(forward, tokens: int, image_start: int | None) -> slice:
    return slice(0, forward.image_tokens)


def last(forward, tokens: int, image_start: int | None) -> slice:
    return slice(tokens - forward.image_tokens, tokens)


def before_references(forward, tokens: int, image_start: int | None) -> slice:
    """[text, image, reference images]"""
    stop = tokens - forward.tokens_of("ref_latents")
    return slice(stop - forward.image_tokens, stop)


# Where the queries are among the keys


def at_the_start(forward, queries: int, keys: int) -> int:
    return 0


def at_the_end(forward, queries: int, keys: int) -> int:
    return keys - queries


def in_groups(forward, queries: int, keys: int) -> int:
    """The tokens ask in groups, one after the other, each with all keys."""
    return forward.asked
