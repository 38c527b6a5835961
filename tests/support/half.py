"""A CPU that measures as a GPU does: few passes over memory, and products of half tensors whose sums are in float32."""

import torch

from .host import engine

# torch has this operator for GPUs alone: from now on the CPU has it too, and fake tensors, for which torch 2.11 lacks it
PRODUCT = "bmm.dtype_out"
LIBRARY = torch.library.Library("aten", "IMPL")
LIBRARY.impl(PRODUCT, lambda x, y, out_dtype, out: torch.bmm(x.to(out_dtype), y.to(out_dtype), out=out), "CPU")
if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{PRODUCT}", "Meta"):
    LIBRARY.impl(PRODUCT, lambda x, y, out_dtype, out: out, "Meta")


def measure_as_on_a_gpu(monkeypatch):
    """Until the test ends. The engine's own code runs, with tensors on the CPU."""
    measures = engine("method.fast.measures")
    monkeypatch.setattr(engine("method.formula"), "SUMS_IN_FLOAT32", {"cpu"})
    monkeypatch.setattr(measures, "_sums_in_cache", lambda q, k, s, workspace, overwrite: measures._sums_in_few_passes(q, k, s))
