"""Numbers made by the paper authors' own code."""

import json
from pathlib import Path

from safetensors import safe_open


class Golden:
    """Inputs and outputs of the paper authors' own code."""

    def __init__(self):
        file = safe_open(Path(__file__).parents[1] / "golden" / "reference.safetensors", "pt")
        self.cases = json.loads(file.metadata()["golden"])["cases"]
        self.tensors = {key: file.get_tensor(key) for key in file.keys()}

    def qkv(self, case):
        x, wq, wk, wv = (self.tensors[f"case{case['case']}.{name}"] for name in ("x", "wq", "wk", "wv"))
        return x, *((x @ w.mT).unflatten(-1, (case["H"], -1)).transpose(1, 2) for w in (wq, wk, wv))

    def output(self, case, key):
        return self.tensors[f"case{case['case']}.{key}"]


golden = Golden()


def named(value):
    """A name for a case or a setting in the ids of tests."""
    return value.get("key") or f"case{value['case']}"
