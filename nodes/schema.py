"""What all nodes of the pack share in their schemas."""

import inspect
from collections.abc import Callable, Iterable

from comfy_api.latest import io

from .engine.choices import BOTH, BRANCHES, IMAGE_TOKENS, TOKENS


def node_schema(*, search_aliases: Iterable[str] = (), **fields) -> io.Schema:
    """A schema without the fields that this version of ComfyUI does not know. A search for the pack's name finds every node."""
    fields["search_aliases"] = ["circulation", *search_aliases]
    return io.Schema(category="circulation", **_known_to(io.Schema, fields))


def advanced(kind: type, name: str, **fields):
    """An input that new front ends show with the advanced ones; to a ComfyUI that has none, an input like any other."""
    return kind(name, **_known_to(kind, {"advanced": True}), **fields)


def _known_to(kind: type, fields: dict) -> dict:
    known = inspect.signature(kind).parameters
    return {name: value for name, value in fields.items() if name in known}


def complaint(check: Callable, *values) -> bool | str:
    """For `validate_inputs`: what a check says of values, True if nothing. None is a value that comes through a link, not known yet."""
    try:
        if None not in values:
            check(*values)
    except ValueError as error:
        return str(error)
    return True


def branches_input(tooltip: str) -> io.Combo.Input:
    return advanced(io.Combo.Input, "branches", options=list(BRANCHES), default=BOTH, optional=True, tooltip=tooltip)


def tokens_input(tooltip: str) -> io.Combo.Input:
    return advanced(io.Combo.Input, "tokens", options=list(TOKENS), default=IMAGE_TOKENS, optional=True, tooltip=tooltip)
