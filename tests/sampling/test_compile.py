"""Beside ComfyUI's torch.compile node, with a compiler that counts its graphs and runs them as they are.

The node in newer versions tells the compiler that nothing in transformer_options decides which
compiled code is right, although our functions and the marks of our blocks travel there.
"""

import pytest
import torch
from support import models
from support.host import patch
from support.others import compiled
from support.sampling import sample

ORDERS = ["compile first", "ours first"]
CHANGED = dict(alpha=1.5)


@pytest.fixture(scope="module")
def model():
    return models.build("sd15", **models.ONE_LEVEL)


def both(model, order, compiler, **inputs):
    if order == "compile first":
        return patch(compiled(model, compiler), **inputs)
    return compiled(patch(model, **inputs), compiler)


def run(model, **kwargs):
    return sample(model, size=8, **kwargs)


@pytest.mark.parametrize("order", ORDERS)
def test_the_image_is_that_of_the_uncompiled_model(model, compiler, order):
    assert torch.equal(run(both(model, order, compiler, **CHANGED)), run(patch(model, **CHANGED)))
    assert compiler.graphs


@pytest.mark.parametrize("order", ORDERS)
def test_new_settings_are_honoured_without_compiling_anew(model, compiler, order):
    run(both(model, order, compiler, **CHANGED))
    before = compiler.graphs
    for inputs in (
        dict(alpha=1.3),
        dict(alpha=1.5, beta=1.0),
        dict(alpha=1.5, branches="negative"),
        dict(alpha=1.5, blocks="middle"),
        dict(alpha=1.5, start_percent=0.5),
        dict(alpha=1.5, rescale="input space (paper)"),
    ):
        assert torch.equal(run(both(model, order, compiler, **inputs)), run(patch(model, **inputs))), inputs
    assert compiler.graphs == before


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_is_compiled_per_step_or_per_run(model, compiler, order):
    patched = both(model, order, compiler, alpha=1.5, start_percent=0.3, end_percent=0.7)
    run(patched, steps=2)
    counts = []
    for steps in (3, 6, 6, 6):  # 0.3.75 compiles once more when the number of steps first changes, also without us
        run(patched, steps=steps)
        counts.append(compiler.graphs)
    assert len(set(counts)) == 1


def test_a_model_compiled_and_run_without_us_is_circulated_when_we_come(model, compiler):
    """And is untouched when we go: baseline and Circulation side by side behind one loader."""
    plain, patched = run(model), run(patch(model, **CHANGED))
    shared = compiled(model, compiler)
    assert torch.equal(run(shared), plain)
    assert torch.equal(run(patch(shared, **CHANGED)), patched)
    assert torch.equal(run(shared), plain)
    assert torch.equal(run(compiled(patch(model, **CHANGED), compiler)), patched)
    assert torch.equal(run(patch(shared, alpha=1.0)), plain)
