"""The fused kernel in Triton's interpreter, on the CPU: `python interpreted.py CASES OUTPUTS`, both files of torch.save.

In a process of its own, because TRITON_INTERPRET must be set before Triton is imported.
"""

import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "nodes"))  # the engine alone, without ComfyUI

import torch
from engine.method.fast import fused



def computed(qkv, alpha, tokens, whole):
    """The output, or `whole` after it was written to its place there."""
    tokens = slice(*tokens)
    if whole is None:
        return fused.attention(*qkv, alpha, tokens)
    fused.attention(*qkv, alpha, tokens, whole[:, :, tokens])
    return whole


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases, outputs = sys.argv[1:]
    with torch.inference_mode():
        torch.save([computed(*case) for case in torch.load(cases)], outputs)
