"""Single attention calls under Circulation, through a backend of ComfyUI's, without a model."""

import torch

from .host import engine
from .watch import KEY

CHUNKS = (1, 0)  # ComfyUI puts the negative's rows first


def run_for_one_call(block, circulation=None, probed=None, branches="both"):
    """A run in the middle of it, with a rule that has acted before, a probe that measures in the space `probed`, or both, at one block."""
    probe, record = engine("run.observer"), engine("records.record")
    everywhere = engine("rules.blocks").Selection.parse("all")
    rules = [] if circulation is None else [engine("rules.rule").Rule(circulation, everywhere, (block,), branches=branches)]
    probes = [] if probed is None else [probe.Probe(probed, 1, (block,), "both", "", record.LiveRecord())]
    observers = [probe.Observer(each, (1.0, 0.0), (block,), lambda percent: 1 - percent) for each in probes]
    run = engine("run.run").Run(engine("rules.plan").Plan(rules, None), observers, [block], (1.0, 0.0), video=False)
    run.begin_evaluation(torch.ones(1))
    if rules:  # where it takes one call, the first evaluation has another one beside it
        run.outcome.hit(0, block.address, "positive")
        run.begin_evaluation(torch.ones(1))
    run.begin_pass(torch.ones(1), (("positive", True), ("negative", True)), rows=0)
    return run


class Site:
    """A self-attention of a made-up UNet in the middle of a run. `chunks` are the conditions of its batch's rows.

    `image` are the image's tokens and `every` those that are both queries and keys: a slice, or one of each.
    """

    def __init__(self, circulation, probed=None, branches="both", previous=None, image=slice(None), chunks=CHUNKS, every=slice(None)):
        self.block = engine("rules.blocks").Block("middle", 0, 0, 0, 0)
        self.run = run_for_one_call(self.block, circulation, probed, branches)
        self.previous, self.chunks = previous, chunks
        square = engine("method.formula").Square
        self.image, self.every = (square(*tokens) if isinstance(tokens, tuple) else square(tokens, tokens) for tokens in (image, every))

    def __call__(self, backend, q, k, v, x, **kwargs):
        """The call a UNet makes: q, k, v and x are (B, L, C), `backend` as ComfyUI's modules hold it."""
        return backend(q, k, v, transformer_options=self.options(x), **kwargs)

    def options(self, x):
        """What the next call is to be given as transformer_options. It is announced with this."""
        self.run.announce(self.block.address, x.device, self.chunks, self.chunks, x, self.image, self.every)
        call = engine("comfy.attention_call").AttentionCall
        return {KEY: lambda func, *args, **kwargs: self.run.attention(call(func, self.previous, args, kwargs))}


def site(alpha=1.5, beta=3.0, rescale="value space", adaptive=None, **kwargs):
    return Site(engine("method.settings").CirculationSettings(alpha, beta, rescale, adaptive), **kwargs)


def inputs(rows=4, heads=2, tokens=24, head_dim=8, scale=1.5, dtype=torch.float32, seed=0):
    """q, k, v and x of one call, and its number of heads."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(rows, tokens, heads * head_dim, generator=generator) for _ in range(4)]
    return *(scale * t.to(dtype) for t in tensors[:2]), *(t.to(dtype) for t in tensors[2:]), heads
