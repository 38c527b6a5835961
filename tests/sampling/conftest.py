import pytest
import torch
from comfy.ldm.modules import attention
from support import others


@pytest.fixture
def compiler(monkeypatch):
    """For `others.compiled`, on the only attention of ComfyUI's that compiles in one piece."""
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):  # instead of giving up compiling
        yield others.Compiler()
    torch._dynamo.reset()
