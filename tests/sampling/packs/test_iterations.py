"""A pack whose wrapper around sampling samples several times, as AnimateDiff-Evolved's FreeInit does.

It copies the guider's options once and calls on with that copy, each time with a noise that holds some of the last result.
"""

import comfy.model_patcher
import pytest
import torch
from support import dense, models
from support.errors import change
from support.host import probe
from support.packs import ALPHA, BETA, ORDERS, ROUNDING, VISIBLE, both, ours, outline
from support.sampling import sample
from support.watch import watch

TIMES = [1, 2, 3]


@pytest.fixture(scope="module")
def model():
    return models.build("sd15", **models.ONE_LEVEL)


def iterated(times):
    def outer_sample(executor, noise, *args, **kwargs):
        guider = executor.class_obj
        given = guider.model_options
        guider.model_options = comfy.model_patcher.create_model_options_clone(given)
        conds = guider.conds
        try:
            before = outline(guider.model_options)
            for _ in range(times):
                guider.conds = {name: [dict(cond) for cond in each] for name, each in conds.items()}
                latent = executor(noise, *args, **kwargs)
                noise = (noise + latent / latent.std()) / 2**0.5
                assert outline(guider.model_options) == before
        finally:
            guider.model_options = given
        return latent

    def node(model):
        model = model.clone()
        model.add_wrapper_with_key("outer_sample", "iterations", outer_sample)
        return model

    return node


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("times", TIMES)
def test_each_iteration_is_the_written_out_method(model, times, order, log):
    theirs = iterated(times)
    image = sample(both(model, theirs, order))
    lines = [record.getMessage() for record in log.records]
    assert lines == ["Circulation: alpha 1.5 beta 3 on all: 4 of 4 blocks hit, all 2 steps, positive and negative."] * (
        times if order == "theirs first" else 1
    )
    assert change(image, sample(theirs(dense.written_out(model, ALPHA, BETA)))) < ROUNDING
    assert change(image, sample(theirs(model))) > VISIBLE
    assert times == 1 or change(image, sample(ours(model))) > VISIBLE


def test_the_orders_agree_on_every_bit(model):
    one, other = (sample(both(model, iterated(3), order)) for order in ORDERS)
    assert torch.equal(one, other)


def measured_by_hand(model, times):
    """What a written-out probe sees, (evaluation, block, measure, branch), under a written-out rule."""
    rows = []

    def see(attention, plain):
        if attention.block is None:
            return None
        q, k, v = (t.double() for t in (attention.q, attention.k, attention.v))
        out = dense.circulation(q, k, v, ALPHA, BETA)
        negative, positive = dense.measures(q, k, out).unbind(1)
        rows.append(torch.stack((positive, negative), 1))
        return out

    sample(iterated(times)(watch(model, see)))
    return torch.stack(rows).unflatten(0, (-1, 4)).float()


@pytest.mark.parametrize("order", ORDERS)
def test_a_probe_sees_each_iteration_once(model, order):
    lives = []

    def probed(model):
        model, live = probe(ours(model))
        lives.append(live)
        return model

    sample(both(model, iterated(2), order, probed))
    runs = lives[0].of(None).runs
    values = torch.cat([run.values for run in runs], dim=1)[..., 0]
    assert [len(run.sigma) for run in runs] == ([2, 2] if order == "theirs first" else [4])
    assert [step for run in runs for step in run.step.tolist()] == [0, 1, 0, 1]
    torch.testing.assert_close(values.permute(1, 2, 0, 3), measured_by_hand(model, 2), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_stays_on_the_model(model, order):
    theirs = iterated(2)
    plain, state = sample(theirs(model)), outline(model.model_options)
    patched = both(model, theirs, order)
    first = sample(patched)
    assert torch.equal(sample(patched), first)
    assert torch.equal(sample(both(model, theirs, order, lambda model: ours(model, alpha=1.0))), plain)
    assert torch.equal(sample(theirs(model)), plain) and outline(model.model_options) == state
