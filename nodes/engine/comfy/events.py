"""Small events to the browser tab that queued the prompt. js/results.js listens for them."""

import contextlib
import inspect

from comfy_execution.graph_utils import is_link

from .prompt import executing, prompt_server, workflow_id, workflow_of

STABILITY = "circulation.stability"  # what a probe measured at one step
STATUS = "circulation.status"  # what came of a Circulation node in a run
REFUSED = "circulation.refused"  # of the prompt that is to be queued, which nodes of ours are refused, and why


def send(event: str, node: str | None, data: dict) -> None:
    """Send an event about a node. Where ComfyUI has no server, or no tab asked for the prompt, it does nothing."""
    server = prompt_server()
    if server is not None and server.client_id is not None:
        prompt = executing().prompt
        running, _ = server.prompt_queue.get_current_queue_volatile()
        server.send_sync(event, {"node": node, "prompt": prompt, "graph": workflow_id(running, prompt), **data}, server.client_id)


def tell_refusals(classes: dict[str, type]) -> None:
    """From now on a tab hears, of each prompt that it queues, why `validate_inputs` of these classes refuses a node, if it does.

    ComfyUI itself says so only after some clicks. `classes` are by the type that a prompt has for them.
    """

    def tell(request):
        with contextlib.suppress(Exception):  # a request may be anything: whether it is a prompt at all is for ComfyUI to say
            ours = {id: node for id, node in request["prompt"].items() if node["class_type"] in classes}
            complaints = {id: _complaint(classes[node["class_type"]], node["inputs"]) for id, node in ours.items()}
            refused = {id: complaint for id, complaint in complaints.items() if complaint is not True}
            server.send_sync(REFUSED, {"graph": workflow_of(request.get("extra_data")), "nodes": refused}, request["client_id"])
        return request

    if (server := prompt_server()) is not None:
        server.add_on_prompt_handler(tell)


def _complaint(cls, inputs: dict) -> bool | str:
    checked = inspect.signature(cls.validate_inputs).parameters
    return cls.validate_inputs(**{name: value for name, value in inputs.items() if name in checked and not is_link(value)})
