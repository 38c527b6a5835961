"""What all nodes of the pack share in their schemas."""

import inspect

from comfy_api.latest import io

from .engine.choices import BOTH, BRANCHES, IMAGE_TOKENS, TOKENS


def node_schema(**fields) -> io.Schema:
    """A schema without the fields that this version of ComfyUI does not know."""
    known = inspect.signature(io.Schema).parameters
    return io.Schema(category="circulation", **{name: value for name, value in fields.items() if name in known})


def branches_input(tooltip: str) -> io.Combo.Input:
    return io.Combo.Input("branches", options=list(BRANCHES), default=BOTH, optional=True, tooltip=tooltip)


def tokens_input(tooltip: str) -> io.Combo.Input:
    return io.Combo.Input("tokens", options=list(TOKENS), default=IMAGE_TOKENS, optional=True, tooltip=tooltip)
