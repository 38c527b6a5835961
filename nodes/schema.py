"""What all nodes of the pack share in their schemas."""

from __future__ import annotations

import inspect

from comfy_api.latest import io


def schema(**fields) -> io.Schema:
    """A schema without the fields that this version of ComfyUI does not know."""
    known = inspect.signature(io.Schema).parameters
    return io.Schema(category="circulation", **{name: value for name, value in fields.items() if name in known})
