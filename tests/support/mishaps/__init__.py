"""Custom nodes that do to a running ComfyUI what goes wrong in practice, and one that says what the process holds."""

import gc
import json
import os
import threading
from pathlib import Path

import comfy.model_management
import torch

ENGINE = "Run", "Plan", "Outcome", "Observer", "Workspace", "Forward", "AttentionCall"  # what lives for one run alone


class Any(str):
    """A type that every input takes."""

    def __ne__(self, other):
        return False


class Value:
    """Any value, through a link: what a widget would refuse."""

    CATEGORY, FUNCTION, RETURN_TYPES = "mishaps", "give", (Any("*"),)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"json": ("STRING", {"default": "null"})}}

    def give(self, json):
        return (parsed(json),)


def parsed(text):
    return json.loads(text)


class BreakAttention:
    """A MODEL whose attention raises at its n-th call: an error, or as if the GPU had no memory left."""

    CATEGORY, FUNCTION, RETURN_TYPES = "mishaps", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "call": ("INT", {"default": 5}), "memory": ("BOOLEAN", {"default": False})}}

    def patch(self, model, call, memory):
        calls = []

        def override(func, *args, **kwargs):
            calls.append(None)
            if len(calls) == call:
                raise comfy.model_management.OOM_EXCEPTION("simulated") if memory else RuntimeError("a failing attention")
            return func(*args, **kwargs)

        model = model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = override
        return (model,)


class Fail:
    """An image node that fails."""

    CATEGORY, FUNCTION, RETURN_TYPES = "mishaps", "fail", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",)}}

    def fail(self, images):
        raise RuntimeError("a failing node")


class State:
    """What the process holds."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "mishaps", "say", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"nonce": ("INT", {"default": 0})}}

    def say(self, nonce):
        gc.collect()
        objects = gc.get_objects()
        ours = [o for o in objects if type(o).__name__ in ENGINE and ".nodes.engine." in type(o).__module__]
        state = {
            "memory": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
            "tensors": sum(issubclass(type(o), torch.Tensor) for o in objects),
            "files": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "ours": len(ours),
        }
        return {"ui": {"state": [json.dumps(state)]}}


NODE_CLASS_MAPPINGS = {"MishapValue": Value, "MishapAttention": BreakAttention, "MishapFail": Fail, "MishapState": State}
