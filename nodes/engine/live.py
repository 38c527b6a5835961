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
        prompt = context and context.prompt_id
        server.send_sync(event, {"node": node, "prompt": prompt, "graph": _graph(server, prompt), **data}, server.client_id)


def _graph(server, prompt: str | None) -> str | None:
    """The id of the workflow that a running prompt was made of; None if it came without one."""
    running, _ = server.prompt_queue.get_current_queue_volatile()
    try:
        return next(extra["extra_pnginfo"]["workflow"]["id"] for _, id, _, extra, *_ in running if id == prompt)
    except (StopIteration, KeyError, TypeError):
        return None


def teller(node: str | None) -> Callable[[dict], None]:
    """What a probe tells its events to."""
    return partial(tell, STABILITY, node)
