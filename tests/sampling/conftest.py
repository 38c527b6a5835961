import pytest
import torch
from comfy.ldm.modules import attention
from support import others
from support.host import engine


@pytest.fixture
def compiler(monkeypatch):
    """For `others.compiled`, on the only attention of ComfyUI's that compiles in one piece."""
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):  # instead of giving up compiling
        yield others.Compiler()
    torch._dynamo.reset()


@pytest.fixture
def statuses(monkeypatch):
    """The line that each node gets, by its id."""
    events, sent = engine("comfy.events"), {}
    monkeypatch.setattr(events, "send", lambda event, node, data: sent.update({node: data["text"]} if event == events.STATUS else {}))
    return sent
