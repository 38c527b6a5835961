"""The prompt that ComfyUI runs: which node is being executed, and how nodes are connected."""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from comfy_execution.graph_utils import is_link
from comfy_execution.utils import get_executing_context

Prompt = Mapping[str, Any]

_EXPANDED = re.compile(r"\.(\d+)\.\d+\.")  # "7.0.0.2" is the id of a node that node 7 expanded into when it was called first


class Executing(NamedTuple):
    """Ids of the node that is being executed and of its prompt, and the place of this call in the list that it runs over.

    All are None outside of a prompt.
    """

    node: str | None
    prompt: str | None
    call: int | None


def executing() -> Executing:
    context = get_executing_context()
    return Executing(None, None, None) if context is None else Executing(context.node_id, context.prompt_id, context.list_index)


def node_of_graph(node: str) -> str:
    """The node that the user sees: where one expands into others, that one."""
    return _EXPANDED.split(node)[0]


def call_of_graph(node: str, call: int | None) -> int | None:
    """The call of the node that the user sees, for a call of a node."""
    expanded = _EXPANDED.search(node)
    return int(expanded[1]) if expanded else call


def prompt_server():
    """ComfyUI's server, None where there is none."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def running_prompt(id: str | None) -> Prompt | None:
    """The prompt that is running under an id, as it was queued; None where there is none."""
    queue = getattr(prompt_server(), "prompt_queue", None)
    running = queue.get_current_queue_volatile()[0] if queue is not None else []
    return next((prompt for _, running_id, prompt, *_ in running if running_id == id), None)


def uses_output(prompt: Prompt, node: str | None, output: int) -> bool:
    """Whether any node of the prompt takes an output of a node."""
    return any([node, output] in other["inputs"].values() for other in prompt.values())


def upstream(prompt: Prompt | None, node: str, input: str) -> set[str] | None:
    """Ids of the nodes that an input of a node depends on; None where nothing is connected to it."""
    link: Any = prompt.get(node, {}).get("inputs", {}).get(input) if prompt else None
    return set(reached(prompt, link[0])) if prompt and is_link(link) else None


def reached(prompt: Prompt, node: str) -> list[str]:
    """Ids of a node and of all that it depends on, in an order that follows from how they are connected alone."""
    ids = [node] if node in prompt else []
    for id in ids:  # which grows
        links = (value[0] for _, value in _inputs(prompt, id) if is_link(value))
        ids += [other for other in dict.fromkeys(links) if other in prompt and other not in ids]
    return ids


def signature(prompt: Prompt, node: str) -> str:
    """A digest of a node and of all that it depends on: their classes, their values and how they are connected, not their ids."""
    numbers = {id: number for number, id in enumerate(reached(prompt, node))}

    def described(value: Any) -> Any:
        return {"link": [numbers.get(value[0]), value[1]]} if is_link(value) else value

    nodes = [[prompt[id].get("class_type"), [[name, described(value)] for name, value in _inputs(prompt, id)]] for id in numbers]
    return hashlib.sha256(json.dumps(nodes, default=repr).encode()).hexdigest()


def _inputs(prompt: Prompt, node: str) -> list[tuple[str, Any]]:
    return sorted(prompt[node].get("inputs", {}).items())


def workflow_id(running: Iterable[tuple], prompt: str | None) -> str | None:
    """The id of the workflow that a running prompt came from; None if it came without one. `running` is the queue's list."""
    return next((workflow_of(extra) for _, id, _, extra, *_ in running if id == prompt), None)


def workflow_of(extra: Any) -> str | None:
    """The id of the workflow in what a prompt brings along; None if it has none there."""
    try:
        return extra["extra_pnginfo"]["workflow"]["id"]
    except (KeyError, TypeError):
        return None
