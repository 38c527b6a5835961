"""Small events to the browser tab that queued the prompt. js/results.js listens for them."""

from .prompt import executing, prompt_server, workflow_id

STABILITY = "circulation.stability"  # what a probe measured at one step
STATUS = "circulation.status"  # what came of a Circulation node in a run


def send(event: str, node: str | None, data: dict) -> None:
    """Send an event about a node. Where ComfyUI has no server, or no tab asked for the prompt, it does nothing."""
    server = prompt_server()
    if server is not None and server.client_id is not None:
        prompt = executing().prompt
        running, _ = server.prompt_queue.get_current_queue_volatile()
        server.send_sync(event, {"node": node, "prompt": prompt, "graph": workflow_id(running, prompt), **data}, server.client_id)
