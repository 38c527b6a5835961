"""Whole prompts in this process: ComfyUI's own executor with its node ids, lists, cache and hidden inputs, and a queue of one."""

import copy
import sys
from types import SimpleNamespace

import comfy_extras.nodes_rebatch
import execution
import pytest

from .host import comfy_nodes
from .models import build, conditioning


def class_of(function, returns=(), lists=(), output=False):
    """A node class that takes whatever it is given."""
    body = dict(FUNCTION="run", CATEGORY="test", RETURN_TYPES=returns, OUTPUT_IS_LIST=lists or (False,) * len(returns), OUTPUT_NODE=output)
    takes_all = type("All", (dict,), {"__contains__": lambda self, key: True, "__getitem__": lambda self, key: ("*", {})})
    body["INPUT_TYPES"] = classmethod(lambda cls: {"required": {}, "optional": takes_all()})
    return type("TestNode", (), {**body, "run": lambda self, **inputs: function(**inputs)})


class Executor:
    """`run(prompt)` gives what each node of class Keep was handed, a list of its calls, by node id."""

    client_id = last_node_id = None

    def __init__(self, cache=execution.CacheType.CLASSIC):
        self._kept = {}
        self._prompts = 0
        self._running = []
        self.prompt_queue = SimpleNamespace(get_current_queue_volatile=lambda: (self._running, []))
        # a node's id is an input like any other here
        self.classes = {
            "Model": class_of(lambda: (build("sd15"),), ("MODEL",)),
            "Prompt": class_of(lambda seed: (conditioning("sd15", seed),), ("CONDITIONING",)),
            "List": class_of(lambda values: (values["list"],), ("*",), (True,)),
            "Curve": class_of(lambda curve, latent: (latent,), ("LATENT",)),
            "Keep": class_of(lambda id, **inputs: self._kept.setdefault(id, []).append(inputs) or {"ui": {}}, output=True),
            "RebatchLatents": comfy_extras.nodes_rebatch.LatentRebatch,
        }
        self._executor = execution.PromptExecutor(self, cache, {"lru": 100, "ram": 0.0, "ram_inactive": 0.0})

    def send_sync(self, *_):
        pass

    def run(self, prompt):
        self._kept.clear()
        self._prompts += 1
        id = f"prompt {self._prompts}"
        self._running = [(0, id, copy.deepcopy(prompt), {}, [])]
        outputs = [node for node in prompt if prompt[node]["class_type"] == "Keep"]
        self._executor.execute(prompt, id, {}, outputs)
        errors = [data["exception_message"] for event, data in self._executor.status_messages if event == "execution_error"]
        if errors:
            raise RuntimeError(errors[0])
        return dict(self._kept)


@pytest.fixture
def executor(request, monkeypatch):
    """An `Executor`; with the cache that the test is parametrized with."""
    made = Executor(getattr(request, "param", execution.CacheType.CLASSIC))
    for name, cls in made.classes.items():
        monkeypatch.setitem(comfy_nodes.NODE_CLASS_MAPPINGS, name, cls)
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=made)))
    return made


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}
