"""Graphs: their size, what they survive, and the arithmetic behind the comparison."""

from itertools import pairwise

import numpy
import pytest
import torch
from support.host import engine

plots, record, MEASURES = engine("records.plots"), engine("records.record"), engine("choices").MEASURES


def made(steps=6, blocks=("input.1.0", "middle.0.0", "output.0.0", "output.1.0"), images=2, label="", level=0.0, **info):
    """A run whose values are level + step on its own schedule, the same for all measures."""
    schedule = tuple(numpy.linspace(10, 0, steps + 1).tolist())
    values = torch.linspace(0, 1, steps + 1)[:-1].reshape(1, steps, 1, 1, 1) + level
    values = values.expand(len(MEASURES), steps, len(blocks), 2, images).clone()
    details = dict(label=label, space="value space", family="SDXL", sampler="euler", steps=steps, schedule=schedule)
    info = record.RunInfo(**{**details, "blocks": blocks, **info})
    return record.RunRecord(info, torch.tensor(schedule[:-1]), torch.arange(steps).float(), values)


def holed(run):
    run.values[:, 1:3, 1] = torch.nan
    run.values[:, :, :, 1] = torch.nan
    return run


@pytest.mark.parametrize("run", [
    made(),
    made(steps=1, images=1),
    made(blocks=tuple(f"output.{block}.{layer}" for block in range(7) for layer in range(10)), steps=50, images=4),
    made(label="a label as long as an artist may find necessary to write", rules=("alpha 1.05 beta 3 on all",) * 3),
    made(complete=False),
    holed(made()),
], ids=["ordinary", "smallest", "SDXL", "long titles", "cut short", "with holes"])  # fmt: skip
def test_every_graph_is_an_image_1024_pixels_wide(run):
    for image in (plots.sheet(run), plots.images(run, "energy")):
        assert image.ndim == 4 and image.shape[0] == 1 and image.shape[2:] == (1024, 3)
        assert image.dtype == torch.float32 and image.min() >= 0 and image.max() <= 1
        assert (image < 0.5).float().mean() > 0.005  # something is drawn


def test_each_measure_has_graphs_of_its_own():
    run = made()
    run.values.add_(torch.arange(5).reshape(5, 1, 1, 1, 1) * torch.rand(run.values.shape))
    for draw in (plots.curves, plots.heat_map, plots.images):
        seen = [draw(run, measure) for measure in MEASURES]
        assert all(image.shape[2] == 1024 for image in seen)
        assert not any(torch.equal(a, b) for a, b in pairwise(seen))


def test_graphs_differ_where_the_runs_do():
    assert not torch.equal(plots.sheet(made()), plots.sheet(holed(made())))
    assert torch.equal(plots.sheet(made()), plots.sheet(made()))


def test_colours_can_be_told_apart_in_grey():
    lightness = []
    for style in plots.STYLES[:3]:  # the stages of a UNet
        r, g, b = (int(style["color"][i : i + 2], 16) for i in (1, 3, 5))
        lightness.append(0.2126 * r + 0.7152 * g + 0.0722 * b)
    dashes = [style["linestyle"] + style["marker"] for style in plots.STYLES]
    assert len(set(dashes)) == len(dashes)
    assert min(abs(a - b) for i, a in enumerate(lightness) for b in lightness[i + 1 :]) > 15


def test_the_difference_is_taken_at_equal_noise():
    """Values follow sigma alone here, so runs of 6 and of 9 steps differ by their level only."""
    first, other = made(steps=6), made(steps=9, level=0.25)
    at, found = plots.difference(other, first, 0, first.info.blocks)
    assert at.tolist() == pytest.approx([1, 2, 3, 4, 5, 6])
    numpy.testing.assert_allclose(found, 0.25, atol=1e-6)
    numpy.testing.assert_allclose(plots.difference(first, first, 0, first.info.blocks)[1], 0, atol=0)


def test_two_to_four_records_make_one_sheet():
    runs = [made(label=f"record {n}", steps=4 + n, level=n / 10) for n in range(4)]
    heights = [plots.compare(runs[:count]).shape[1] for count in (2, 3, 4)]
    assert heights == sorted(heights) and len(set(heights)) == 3


def test_only_common_blocks_are_compared_and_there_must_be_one():
    plots.compare([made(), made(blocks=("middle.0.0",))])
    with pytest.raises(ValueError, match="no block in common"):
        plots.compare([made(), made(blocks=("input.7.0",))])
    with pytest.raises(ValueError, match="cannot be compared"):
        plots.compare([made(label="a"), made(label="b", space="input space (paper)")])
