"""The painted grid in whole models: what it does to an image."""

import json

import pytest
import torch
from support import models
from support.errors import change
from support.host import engine, node, patch
from support.sampling import sample

Schedule = engine("rules.schedule").Schedule


@pytest.fixture(scope="module")
def model():
    return models.build("sd15")


@pytest.mark.parametrize("columns", [1, 2, 3, 7, 20, 64])
def test_a_column_starts_where_a_range_of_its_percent_starts(columns, model):
    """As start_percent: the sigma of exactly that percent is in."""
    sampling = model.get_model_object("model_sampling")
    at = Schedule((tuple(number / 64 for number in range(columns)),)).resampled(1, sampling.percent_to_sigma)
    for number in range(1, columns):
        sigma = torch.tensor(sampling.percent_to_sigma(number / columns))
        assert at(float(sigma)) == (number / 64,)
        assert at(float(torch.nextafter(sigma, torch.tensor(99.0)))) == ((number - 1) / 64,)


def painted(*rows):
    return node("CirculationSchedule").execute(json.dumps({"grid": rows})).result[0]


SETTINGS = [
    ("CirculationControl", dict(alpha=1.4, beta=3.0)),
    ("CirculationAdaptive", dict(alpha=1.4, beta=3.0)),
    ("CirculationAdaptive", dict(alpha=0.8, beta=2.0, formula="scale")),
]


@pytest.mark.parametrize("node_id, inputs", SETTINGS)
def test_ones_are_as_no_schedule_and_zeros_are_off(model, node_id, inputs):
    off, on = sample(model), sample(patch(model, node_id, **inputs))
    assert not torch.equal(on, off)
    assert torch.equal(sample(patch(model, node_id, **inputs, schedule=painted([1, 1, 1], [1, 1, 1]))), on)
    assert torch.equal(sample(patch(model, node_id, **inputs, schedule=painted([0, 0, 0], [0, 0, 0]))), off)


def test_rows_are_depth_as_in_blocks(model):
    half = sample(patch(model, alpha=1.4, blocks="0%-50%"))
    assert torch.equal(sample(patch(model, alpha=1.4, schedule=painted([1], [0]))), half)
    assert not torch.equal(sample(patch(model, alpha=1.4, schedule=painted([0], [1]))), half)


def test_columns_are_time_as_in_percent(model):
    early = sample(patch(model, alpha=1.4, end_percent=0.5), steps=4)
    assert torch.equal(sample(patch(model, alpha=1.4, schedule=painted([1, 0])), steps=4), early)
    assert not torch.equal(sample(patch(model, alpha=1.4, schedule=painted([0, 1])), steps=4), early)


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_factor_is_on_what_alpha_lies_from_one(model, adaptive):
    node_id = "CirculationAdaptive" if adaptive else "CirculationControl"
    twice = sample(patch(model, node_id, alpha=1.25, beta=3.0, schedule=painted([2])))
    assert change(twice, sample(patch(model, node_id, alpha=1.5, beta=3.0))) < 1e-4
    assert change(twice, sample(patch(model, node_id, alpha=1.25, beta=3.0))) > 1e-3


def test_the_later_rule_wins_also_where_its_cells_are_0(model):
    first = patch(model, alpha=1.4)
    assert torch.equal(sample(patch(first, alpha=1.3, schedule=painted([0]))), sample(model))
    assert torch.equal(sample(patch(first, alpha=1.4, schedule=painted([1], [0]))), sample(patch(model, alpha=1.4, blocks="0%-50%")))


def test_the_schedule_keeps_to_the_nodes_blocks_and_time(model):
    inputs = dict(alpha=1.4, blocks="middle, output", start_percent=0.3)
    alone = sample(patch(model, **inputs), steps=4)
    assert torch.equal(sample(patch(model, **inputs, schedule=painted([1, 1], [1, 1])), steps=4), alone)
