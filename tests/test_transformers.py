"""Transformers through ComfyUI's own sampler, family by family.

The yardstick is `dense`: the same model with the attentions over the image written out. Which those
are is told by hooks on the model's modules, and which tokens are the image by what changes with the noise.
"""

import functools

import pytest
import torch
from support import dense, transformers
from support.host import engine, patch, probe
from support.sampling import change
from support.transformers import conditioning, image_positions, sample, watched

ALPHA, BETA = 1.5, 3.0
ROUNDING = 1e-4  # the fast path against the written-out one, relative, over a whole run
FAMILIES = [name for name, small in transformers.FAMILIES.items() if small.known]
JOINT = ["sd3", "flux", "qwen", "z_image", "hunyuan_video", "hidream", "mochi"]
WITH_REFERENCES = ["flux", "flux2", "qwen", "omnigen2"]


@functools.cache
def model(name, **changed):
    return transformers.build(name, **changed)


def ours(name, **inputs):
    return patch(model(name), alpha=ALPHA, beta=BETA, **inputs)


def truth(name, image=None, adapt=None, only=None, **kwargs):
    with watched(model(name), name, dense.written_out(ALPHA, BETA, image, adapt, only)) as written_out:
        return sample(written_out, name, **kwargs)


def image_of(name, **kwargs):
    """Where the image is. Refining layers would carry the noise into tokens that only fill up the image's."""
    changed = {"n_refiner_layers": 0} if name in ("lumina2", "z_image") else {}
    return image_positions(model(name, **changed), name, **kwargs)


def recorded(name, **kwargs):
    """Calls of a run, each as (block, shape of q, number of keys), and the image."""
    calls = []

    def see(attention, plain):
        calls.append((attention.block, tuple(attention.q.shape), attention.k.shape[2]))

    with watched(model(name), name, see) as clone:
        out = sample(patch(clone, alpha=ALPHA, **kwargs.pop("inputs", dict(alpha=1.0))), name, **kwargs)
    return calls, out


def head_dim(name):
    return engine("families").blocks(model(name))[0].head_dim


def assert_equal(result, reference, untouched):
    """To rounding, which is far less than the whole effect is."""
    error, effect = change(result, reference), change(reference, untouched)
    assert error < ROUNDING and error < effect / 100


@pytest.mark.parametrize("tokens", ["image", "all"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_attention_over_the_image_computes_the_written_out_formula(name, tokens):
    image = image_of(name, batch=2) if tokens == "image" else None
    result, untouched = sample(ours(name, tokens=tokens), name, batch=2), sample(model(name), name, batch=2)
    reference = truth(name, image, batch=2)
    assert_equal(result, reference, untouched)
