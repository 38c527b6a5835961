"""Single attention calls under Circulation, through a backend of ComfyUI's, without a model."""

import torch

from .host import engine
from .others import OVERRIDE

probe, record = engine("run.observer"), engine("records.record")

CHUNKS = (1, 0)  # ComfyUI puts the negative's rows first


class Site:
    """A self-attention of a made-up UNet in the middle of a run."""

    def __init__(self, alpha=1.5, beta=3.0, rescale="value space", branches="both", previous=None, image=slice(None), adaptive=None, probed=None):
        block = engine("rules.blocks").Block("middle", 0, 0, 0, 0)
        circulation = engine("method.settings").CirculationSettings(alpha, beta, rescale, adaptive)
        selection = engine("rules.blocks").Selection.parse("all")
        rule = engine("rules.rule").Rule(circulation, selection, (block,), branches=branches)
        self.block, self.previous, self.image = block, previous, image
        observers = [] if probed is None else [probe.Observer(probe.Probe(probed, 1, (block,), "both", "", record.LiveRecord()), (1.0, 0.0))]
        self.run = engine("run.run").Run(engine("rules.plan").Plan([rule], None), observers, [block], [1.0, 0.0], video=False)
        self.run.begin_evaluation(torch.ones(1))
        self.run.begin_pass(torch.ones(1), ("positive", "negative"))

    def __call__(self, backend, q, k, v, x, **kwargs):
        """The call a UNet makes: q, k, v and x are (B, L, C), `backend` as ComfyUI's modules hold it."""
        self.run.announce(self.block.address, x.device, CHUNKS, CHUNKS, x, self.image)
        call = engine("comfy.attention_call").AttentionCall
        options = {OVERRIDE: lambda func, *args, **kw: self.run.attention(call(func, self.previous, args, kw))}
        return backend(q, k, v, transformer_options=options, **kwargs)


def inputs(rows=4, heads=2, tokens=24, head_dim=8, scale=1.5, dtype=torch.float32, seed=0):
    """q, k, v and x of one call, and its number of heads."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(rows, tokens, heads * head_dim, generator=generator) for _ in range(4)]
    return *(scale * t.to(dtype) for t in tensors[:2]), *(t.to(dtype) for t in tensors[2:]), heads
