"""Packs that cut the latent into tiles and hand several of them to the model in one batch, as TiledDiffusion does by default.

The rows are then t1- t1+ t2- t2+, while cond_or_uncond still speaks of two chunks.
"""

import pytest
import torch
from support import dense, models, transformers
from support.errors import change
from support.host import probe
from support.models import conditioning
from support.packs import ALPHA, BETA, ORDERS, ROUNDING, VISIBLE, both, ours
from support.sampling import sample
from support.watch import watch

CORNERS = [(slice(top, top + 10), slice(left, left + 10)) for top in (0, 6) for left in (0, 6)]  # of a latent of 16 x 16


@pytest.fixture(scope="module")
def model():
    return models.build("sd15", **models.ONE_LEVEL)


def tiled(at_once):
    """A node that samples the latent in four overlapping tiles, so many in one batch."""

    def wrapper(apply_model, given):
        x, timestep, c = given["input"], given["timestep"], given["c"]
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        for start in range(0, len(CORNERS), at_once):
            corners = CORNERS[start : start + at_once]
            tiles = torch.cat([x[:, :, rows, columns] for rows, columns in corners])
            repeated = {key: torch.cat([value] * len(corners)) if torch.is_tensor(value) else value for key, value in c.items()}
            out = apply_model(tiles, timestep.repeat(len(corners)), **repeated)
            for (rows, columns), part in zip(corners, out.chunk(len(corners))):
                total[:, :, rows, columns] += part
                count[:, :, rows, columns] += 1
        return total / count

    def node(model):
        model = model.clone()
        model.set_model_unet_function_wrapper(wrapper)
        return model

    return node


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("at_once", [1, 2, 3, 4])
def test_both_branches_are_right_with_any_number_of_tiles(model, at_once, batch, order, log):
    reference = sample(tiled(1)(dense.written_out(model, ALPHA, BETA)), batch=batch)
    assert change(sample(both(model, tiled(at_once), order), batch=batch), reference) < ROUNDING
    assert change(reference, sample(tiled(1)(model), batch=batch)) > VISIBLE
    assert "4 of 4 blocks hit" in log.text and "Left alone" not in log.text


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("branch, condition", [("positive", 0), ("negative", 1)])
def test_one_branch_is_right_with_one_tile_at_a_time(model, branch, condition, order):
    image = sample(both(model, tiled(1), order, lambda model: ours(model, branches=branch)))
    assert change(image, sample(tiled(1)(dense.written_out(model, ALPHA, BETA, conditions=[condition])))) < ROUNDING
    assert change(image, sample(tiled(1)(model))) > VISIBLE


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("at_once", [2, 3, 4])  # with 3 the fourth comes alone
@pytest.mark.parametrize("branch", ["positive", "negative"])
def test_one_branch_is_left_alone_with_several_tiles_and_the_reason_is_said(model, branch, at_once, batch, order, log, statuses):
    theirs = sample(tiled(at_once)(model), batch=batch)
    assert torch.equal(sample(both(model, tiled(at_once), order, lambda model: ours(model, branches=branch)), batch=batch), theirs)
    (line,) = log.records
    assert line.levelname == "WARNING"
    assert "several tiles" in line.getMessage() and "several tiles" in statuses["1"]


@pytest.mark.parametrize("branch, condition", [("positive", 0), ("negative", 1)])
def test_one_branch_is_right_where_each_prompt_is_a_call_of_its_own(model, branch, condition, log):
    """Then all rows are of that prompt, however many tiles they are."""
    texts = dict(positive=conditioning("sd15", 1, tokens=10))
    image = sample(tiled(4)(ours(model, branches=branch)), **texts)
    assert change(image, sample(tiled(1)(dense.written_out(model, ALPHA, BETA, conditions=[condition])), **texts)) < ROUNDING
    assert "4 of 4 blocks hit" in log.text and "Left alone" not in log.text


def test_rules_that_differ_by_branch_are_left_alone_and_those_for_both_are_not(model, log):
    for_both = sample(tiled(1)(ours(model)))
    two = ours(ours(model), alpha=1.2, branches="negative", blocks="middle")
    image = sample(tiled(4)(two))
    reference = dense.written_out(model, ALPHA, BETA, only=lambda block: not block.startswith("middle"))
    assert change(image, sample(tiled(1)(reference))) < ROUNDING
    assert change(image, for_both) > VISIBLE
    assert "calls at middle.0.0: another node hands several tiles" in log.text


@pytest.mark.parametrize("at_once", [2, 3, 4])
def test_a_probe_leaves_out_several_tiles_at_once_and_says_so(model, at_once):
    probed, live = probe(model)
    assert torch.equal(sample(tiled(at_once)(probed)), sample(tiled(at_once)(model)))
    (run,) = live.of(None).runs
    assert not run.values.isfinite().any()
    assert any("tiles" in note for note in run.info.notes)


def test_a_probe_keeps_the_first_of_tiles_that_come_one_by_one_and_says_so(model):
    first = []

    def see(attention, plain):
        if attention.block is not None:
            first.append(dense.measures(attention.q.double(), attention.k.double(), plain.double()))

    sample(tiled(1)(watch(model, see)), steps=1)
    probed, live = probe(model)
    sample(tiled(1)(probed), steps=1)
    (run,) = live.of(None).runs
    assert run.values.shape[1:] == (1, 4, 2, 1)
    for block, expected in enumerate(first[:4]):
        torch.testing.assert_close(run.values[:, 0, block, :, 0], expected.flip(1).float(), rtol=2e-3, atol=2e-3)
    assert any("tiles" in note for note in run.info.notes)


@pytest.mark.parametrize("name", transformers.PRESENT)
def test_no_model_is_taken_for_tiles(name, log):
    """Some put parts of the image into the batch."""
    model = transformers.build(name)
    probed, live = probe(ours(model, branches="negative"))
    together = dict(batch=2, negative=transformers.conditioning(name, 2))
    negative, of_both = transformers.sample(probed, name, **together), transformers.sample(ours(model), name, **together)
    assert "tiles" not in log.text and not torch.equal(negative, of_both)
    (run,) = live.of(None).runs
    assert run.values.isfinite().all() and run.values.shape[-1] == 2
