"""Small events to the browser tab that queued the prompt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from comfy_execution.utils import get_executing_context

STABILITY = "circulation.stability"  # what a probe measured at one step
STATUS = "circulation.status"  # what came of a Circulation node in a run


def tell(event: str, node: str | None, data: dict) -> None:
    """Sends an event about a node. Where ComfyUI has no server, or no tab asked for the prompt, it does nothing."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None and server.client_id is not None:
        context = get_executing_context()
        server.send_sync(event, {"node": node, "prompt": context and context.prompt_id, **data}, server.client_id)


def teller(node: str | None) -> Callable[[dict], None]:
    """What a probe tells its events to."""
    return partial(tell, STABILITY, node)
