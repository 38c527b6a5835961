"""How far one pass is from the paper's method on the model of avatars, beside the paper's method without a rescale.

Attention outputs: of each self-attention of the baseline's own runs, in the paper's method's steps. Images: decoded, root mean square.
"""

import numpy
import torch
from circulation_demo.evidence import data, sampling
from circulation_demo.evidence.plan import PER_PROMPT
from support import dense
from support.host import patch
from support.watch import watch

STRENGTHS = ((0.9, 3.0), (0.9, 5.0), (1.05, 3.0), (1.05, 5.0), (1.2, 3.0), (1.2, 5.0))
PROMPTS = 16
OTHERS = ("one pass", "no rescale")
EVERY = 4  # attention calls


def table():
    model = sampling.Model()
    factors, seeds = numpy.repeat(data.prompts(0, PROMPTS), 1, axis=0), data.seeds(0, PROMPTS)[::PER_PROMPT]
    outputs = _outputs(model, factors, seeds)
    plain = _pictures(model, model.unet, factors, seeds)
    compared = [f"{what}: {other}" for what in ("outputs", "images") for other in OTHERS]
    head = ["alpha / beta", "alpha of one pass", "change, images", *compared, "cosine"]
    rows = []
    for alpha, beta in STRENGTHS:
        paper, one, off = (
            _pictures(model, patch(model.unet, alpha=alpha, beta=beta, **inputs), factors, seeds)
            for inputs in ({}, {"method": "one pass"}, {"rescale": "off"})
        )
        effect = _rms(paper - plain)
        cosine = numpy.vdot(one - plain, paper - plain) / numpy.linalg.norm(one - plain) / numpy.linalg.norm(paper - plain)
        shares = [*outputs[alpha, beta], *(_rms(other - paper) / effect for other in (one, off))]
        strength = [f"{alpha:g} / {beta:g}", f"{1 + beta * (alpha - 1):g}", f"{100 * effect:.2f} %"]
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


def _pictures(model, patched, factors, seeds):
    return model.images(model.latents(patched, factors, seeds)) / 255.0


def _rms(difference):
    return float(numpy.sqrt(numpy.mean(numpy.square(difference))))
