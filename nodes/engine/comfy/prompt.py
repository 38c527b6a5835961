"""The prompt that ComfyUI runs: which node is being executed, and how nodes are connected."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from comfy_execution.utils import get_executing_context


class Executing(NamedTuple):
    """Ids of the node that is being executed and of its prompt; both None outside of a prompt."""

    node: str | None
    prompt: str | None


def executing() -> Executing:
    context = get_executing_context()
    return Executing(None, None) if context is None else Executing(context.node_id, context.prompt_id)


def node_of_graph(node: str) -> str:
    """The node that the user sees: what a node expands into has ids such as "7.0.0.2", where 7 is that node's."""
    return re.split(r"\.\d+\.\d+\.", node)[0]


def uses_output(prompt: Mapping[str, Any], node: str | None, output: int) -> bool:
    """Whether any node of the prompt takes an output of a node."""
    return any([node, output] in other["inputs"].values() for other in prompt.values())


def upstream(prompt: Mapping[str, Any] | None, node: str, input: str) -> set[str] | None:
    """Ids of the nodes that an input of a node depends on; None where nothing is connected to it."""
    link = prompt.get(node, {}).get("inputs", {}).get(input) if prompt else None
    if not prompt or not isinstance(link, list):
        return None
    reached: set[str] = set()
    waiting = [link[0]]
    while waiting:
        id = waiting.pop()
        if id not in reached and id in prompt:
            reached.add(id)
            waiting += [value[0] for value in prompt[id]["inputs"].values() if isinstance(value, list) and len(value) == 2]
    return reached


def workflow_id(running: Iterable[tuple], prompt: str | None) -> str | None:
    """The id of the workflow that a running prompt came from; None if it came without one. `running` is the queue's list."""
    try:
        return next(extra["extra_pnginfo"]["workflow"]["id"] for _, id, _, extra, *_ in running if id == prompt)
    except (StopIteration, KeyError, TypeError):
        return None
