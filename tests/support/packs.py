"""Ours and another pack's node on one MODEL, in either order."""

from comfy_execution.utils import CurrentNodeContext

from .host import patch

ALPHA, BETA = 1.5, 3.0
ORDERS = ["theirs first", "ours first"]
ROUNDING = 1e-4  # the fast path against the written-out one, relative, over a whole run
VISIBLE = 1e-3


def ours(model, node="1", **inputs):
    """The MODEL that a Circulation node makes, under its id as ComfyUI runs it."""
    with CurrentNodeContext("prompt", node, 0):
        return patch(model, **{"alpha": ALPHA, "beta": BETA, **inputs})


def both(model, theirs, order, ours=ours):
    """`theirs` and `ours` take a MODEL and return one."""
    return ours(theirs(model)) if order == "theirs first" else theirs(ours(model))


def outline(value):
    """Dictionaries and lists by content, all else by identity."""
    if isinstance(value, dict):
        return {key: outline(inner) for key, inner in value.items()}
    return [id(each) for each in value] if isinstance(value, list) else id(value)
