"""Blocks that a model calls without ComfyUI's options, so that their attention asks for no override: they are handed the options.

By ModelPatcher's own means: the `forward` of each block is patched on the clone, and taken back with the model. Outside a run of ours the
patch does what the block does.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

from torch.nn import Module

from ..families.forward import Mark
from ..families.transformer import TransformerFamily
from ..phrases import Phrase
from . import keys
from .model import diffusion_model, family_of

TAKEN = Phrase("blocksTaken")


class HandingOn:
    """What the blocks of a MODEL are handed, in each thread."""

    def __init__(self):
        self._thread = threading.local()

    @contextlib.contextmanager
    def during(self, options: dict) -> Iterator[None]:
        """Around a call of the network: what its blocks are handed, where it hands them nothing."""
        self._thread.options = options
        try:
            yield
        finally:
            self._thread.options = None

    def forward(self, block: Module, kind: str, index: int) -> Callable:
        own = block.forward

        def forward(*args, **kwargs):
            options = getattr(self._thread, "options", None)
            if options is not None and keys.TRANSFORMER_OPTIONS not in kwargs:
                kwargs[keys.TRANSFORMER_OPTIONS] = {**options, keys.MARK: Mark(kind, index)}
            return own(*args, **kwargs)

        forward.handing_on = self  # type: ignore[attr-defined]
        return forward


def patch_blocks(model) -> None:
    """On a clone whose family needs it. Raises ValueError where another node has patched one of them."""
    if handing_on(model) is not None:
        return
    holder = HandingOn()
    for path, *block in _blocks(model):
        if path in model.object_patches:
            raise ValueError(TAKEN)
        model.add_object_patch(path, holder.forward(*block))


def handing_on(model) -> HandingOn | None:
    """Of a MODEL whose blocks are patched. Raises ValueError where another node has patched one of them since."""
    found = {getattr(model.object_patches.get(path), "handing_on", None) for path, *_ in _blocks(model)}
    if len(found) > 1:
        raise ValueError(TAKEN)
    return next(iter(found), None)


def _blocks(model) -> Iterator[tuple[str, Module, str, int]]:
    """Path, module, kind and index of each block that the model hands nothing on to."""
    family, network = family_of(model), diffusion_model(model)
    for stage in family.stages if isinstance(family, TransformerFamily) and family.hands_nothing_on else ():
        for index, block in enumerate(stage.blocks(network)):
            assert stage.kind
            yield f"diffusion_model.{stage.modules}.{index}.forward", block, stage.kind, index
