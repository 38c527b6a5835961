"""One call of a transformer: which of its attentions comes next, and which tokens there are the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import Module

from .blocks import Address
from .circulation import EVERYTHING
from .families.transformer import Transformer, grid


class Mark:
    """Put into the options of a block while it runs, so that its attentions tell where they are."""

    def __init__(self, kind: str, index: int):
        self.block = (kind, index)
        self._calls = 0

    def next_turn(self) -> int:
        self._calls += 1
        return self._calls - 1


class Forward:
    """Made when the model is called, and asked by each attention in turn.

    Where a block is marked the mark counts, then the options of ComfyUI, then how many attentions
    there were so far: which of them there are differs between families and versions of ComfyUI.
    """

    MARK = "circulation_mark"

    def __init__(self, family: Transformer, module: Module, places: Mapping, latent: Sequence[int], conditions: Mapping):
        """`latent` is the shape of what is denoised, `conditions` what else the model is given."""
        self.module = module
        self.image_tokens = grid(latent, family.patch(module))
        self._family = family
        self._conditions = conditions
        self._places = places
        self._sequence = family.sequence(module, places, conditions) if family.counted else ()
        self._calls = 0
        self._told = 0
        self._block, self._turn = None, 0

    def next_address(self, options: Mapping) -> Address | None:
        """Where the attention that is called with these options is; None if it is not over the image."""
        self._calls += 1
        if self.MARK in options:
            mark = options[self.MARK]
            self._block, self._turn = mark.block, mark.next_turn()
        elif "block_index" in options:
            self._told += 1
            block = (options.get("block_type"), options["block_index"])
            # Side networks such as VACE's run after a block, without its mark and under its number.
            self._turn = self._turn + 1 if block == self._block else 0
            self._block = block
        elif self._calls <= len(self._sequence):
            return self._sequence[self._calls - 1]
        else:
            return None
        return self._places.get((*self._block, self._turn))

    def image(self, tokens: int, options: Mapping) -> slice | None:
        """Which of an attention's tokens are the image's; None if there is no room for it."""
        if tokens == self.image_tokens:
            return EVERYTHING
        found = self._family.image(self, tokens, options)
        if not 0 <= found.start < found.stop <= tokens:
            return None
        return EVERYTHING if found == slice(0, tokens) else found

    def tokens_of(self, condition: str) -> int:
        """Tokens of the latent, or the list of them, that a condition brings; 0 where the model is not given it."""
        given = self._conditions.get(condition)
        latents = [given] if isinstance(given, Tensor) else given or ()
        return sum(grid(latent.shape, self._family.patch(self.module)) for latent in latents)

    @property
    def miscounted(self) -> bool:
        """Whether blocks were told apart by counting, and there were more or fewer attentions than there should be."""
        return bool(self._sequence) and not self._told and self._calls not in (0, len(self._sequence))
