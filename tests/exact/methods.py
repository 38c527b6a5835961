"""How far one pass is from the paper's method on the model of avatars, beside the paper's method without a rescale.

Attention outputs: of every fourth self-attention of the baseline's own runs. Images: latents; root mean squares of each, and of those the
median over images, because one that turns into another one outweighs all that change a little.
"""

import numpy
import torch
from circulation_demo.evidence import data, sampling
from circulation_demo.evidence.plan import PER_PROMPT
from support import dense
from support.host import patch
from support.watch import watch

STRENGTHS = ((0.9, 3.0), (0.9, 5.0), (1.05, 3.0), (1.05, 5.0), (1.2, 3.0), (1.2, 5.0))
PROMPTS = 48
OTHERS = ("one pass", "no rescale")
EVERY = 4  # attention calls


def table():
    model = sampling.Model()
    factors, seeds = numpy.repeat(data.prompts(0, PROMPTS), 1, axis=0), data.seeds(0, PROMPTS)[::PER_PROMPT]
    outputs = _outputs(model, factors, seeds)
    plain = _latents_of(model, model.unet, factors, seeds)
    compared = [f"{what}: {other}" for what in ("outputs", "latents") for other in OTHERS]
    head = ["alpha / beta", "alpha of one pass", "change, latents", *compared, "cosine"]
    rows = []
    for alpha, beta in STRENGTHS:
        paper, one, off = (
            _latents_of(model, patch(model.unet, alpha=alpha, beta=beta, **inputs), factors, seeds)
            for inputs in ({}, {"method": "one pass"}, {"rescale": "off"})
        )
        effect = _rms(paper - plain)
        shares = [*outputs[alpha, beta], *(numpy.median(_rms(other - paper) / effect) for other in (one, off))]
        cosine = numpy.median(numpy.sum((one - plain) * (paper - plain), axis=-1) / (_norm(one - plain) * _norm(paper - plain)))
        strength = [f"{alpha:g} / {beta:g}", f"{1 + beta * (alpha - 1):g}", f"{numpy.median(effect):.3f}"]
        rows.append([*strength, *(f"{number:.2f}" for number in (*shares, cosine))])
    return head, rows


def _outputs(model, factors, seeds):
    """Of each strength, how far the outputs of one pass and of no rescale lie from the paper's method, in units of its effect."""
    sums = {strength: torch.zeros(3, dtype=torch.double) for strength in STRENGTHS}
    calls = 0

    def see(attention, plain):
        nonlocal calls
        calls += attention.block is not None
        if attention.block is None or calls % EVERY:
            return
        q, k, v = (t.double() for t in (attention.q, attention.k, attention.v))
        o = dense.circulation(q, k, v, 1.0, 1.0, "off")
        for alpha, beta in STRENGTHS:
            paper, off = (dense.circulation(q, k, v, alpha, beta, space) for space in ("value space", "off"))
            one = dense.circulation(q, k, v, 1 + beta * (alpha - 1), 1.0, "off")
            sums[alpha, beta] += torch.stack([(t - paper).square().sum() for t in (one, off, o)])

    model.latents(watch(model.unet, see), factors, seeds)
    return {strength: tuple((of[:2] / of[2]).sqrt().tolist()) for strength, of in sums.items()}


def _latents_of(model, patched, factors, seeds):
    """(N, channels and pixels): decoded pictures have steps of 1/255, which would hide what is small."""
    return model.latents(patched, factors, seeds).flatten(1).numpy()


def _norm(differences):
    return numpy.linalg.norm(differences, axis=-1).clip(1e-12)


def _rms(differences):
    return _norm(differences) / differences.shape[-1] ** 0.5
