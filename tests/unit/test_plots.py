"""Graphs: their size, what they survive, and the arithmetic behind the comparison."""

import sys
import time
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


LABELS = ["$$", "$\\frac{$", "$5 vs $10", "{" * 500 + "$", "\ud800 a\nb\x00 输入", "x" * 16_000, ""]


@pytest.fixture
def drawn(monkeypatch):
    """The texts of each figure, as matplotlib is asked to draw them, and whether as formulas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    seen = []
    draw = FigureCanvasAgg.draw

    def noting(canvas, *args):
        draw(canvas, *args)
        seen.extend((text.get_text(), text.get_parse_math()) for text in canvas.figure.findobj(Text) if text.get_text())

    monkeypatch.setattr(FigureCanvasAgg, "draw", noting)
    return seen


def figures(run):
    yield plots.sheet(run)
    yield plots.compare([run, made(label="other")])
    yield plots.images(run, "energy")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("label", LABELS, ids=range(len(LABELS)))
def test_a_label_is_drawn_as_it_is_written(drawn, label):
    everywhere = dict.fromkeys(("family", "sampler"), label)
    blocks = (f"{label}.0.0", "middle.0.0", "output.0.0", "output.1.0")
    for image in figures(made(label=label, rules=(label,), blocks=blocks, **everywhere)):
        assert image.shape[2] == 1024
    assert drawn and not any(as_formula for text, as_formula in drawn if "$" in text or not text.isascii())
    assert all(len(text) < 700 and max(map(len, text.split("\n"))) < 130 for text, _ in drawn)
    if label.isprintable() and 0 < len(label) < 40:
        assert any(label in text for text, _ in drawn)


def test_a_long_label_costs_no_time():
    def cost(run):
        start = time.process_time()
        plots.curves(run, "energy")
        return time.process_time() - start

    short, long = (min(cost(made(label=label)) for _ in range(3)) for label in ("short", "x" * 16_000))
    assert long < 3 * short


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("run", [
    made(steps=1, images=0),
    made(steps=0),
    made(blocks=()),
], ids=["no image", "a schedule of one sigma", "no block"])  # fmt: skip
def test_a_run_without_a_measurement_is_a_figure_that_says_so(run):
    for image in figures(run):
        assert image.shape[2] == 1024 and (image < 0.5).any()
    assert "Nothing was measured in this run" in engine("records.summary").to_markdown(record.Record((run,)))
    assert engine("records.chart").chart_data(run)["points"] == [] or run.values.shape[1]


@pytest.mark.parametrize("error", [ImportError("numpy.core.multiarray failed to import"), ValueError("numpy.dtype size changed"), None])
def test_without_matplotlib_a_figure_says_what_to_install(monkeypatch, error):
    said = []
    monkeypatch.setattr(plots, "notice", lambda text: said.append(text) or engine("records.notice").notice(text))
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)

    class Broken:
        def find_spec(self, name, *_):
            if name.partition(".")[0] == "matplotlib":
                raise error or ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    for image in figures(made()):
        assert image.ndim == 4 and image.shape[2:] == (1024, 3) and (image < 0.5).any()
    assert len(said) == 3 and all("pip install --upgrade matplotlib" in text and str(error or "No module") in text for text in said)


def test_a_heat_map_of_very_many_blocks_stays_a_figure():
    assert plots.heat_map(made(blocks=tuple(f"double.{n}" for n in range(5000)), steps=2), "energy").shape[1] < 5000


def test_a_notice_is_wrapped_and_takes_any_letter():
    images = [engine("records.notice").notice(text) for text in ("short", "many words " * 100, "输入 \ud800 é")]
    heights = [image.shape[1] for image in images]
    assert heights[1] > heights[0] == heights[2] and all(image.shape[2] == 1024 and (image < 0.5).any() for image in images)


def test_a_heat_map_of_energy_can_be_read_for_every_block():
    """A block whose energy is a thousand times that of the others does not make them one colour."""
    run = made(steps=6, images=1)
    run.values[0] = torch.linspace(-1, -0.2, 6).reshape(6, 1, 1, 1) * torch.tensor([1.0, 1000.0, 1.0, 2.0]).reshape(4, 1, 1)
    drawn = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plots, "_grid", lambda axis, values, *args, **colours: drawn.append((numpy.asarray(values), colours)))
        plots.heat_map(run, "energy")
        plots.compare([run, run])
    (values, colours), *others = drawn
    assert values == pytest.approx(numpy.tile(numpy.linspace(-1, -0.2, 6), (4, 1)), abs=1e-6)
    assert colours["vmax"] - colours["vmin"] > 0.75
    assert all(numpy.abs(values).max() == 0 for values, _ in others)


def test_energy_that_is_zero_or_was_not_measured_is_drawn():
    run = holed(made())
    run.values[0, :, 0] = 0
    run.values[0, :, 2] = torch.nan
    assert plots.heat_map(run, "energy").isfinite().all()


@pytest.mark.parametrize("draw", [
    plots.sheet,
    lambda run, theme: plots.images(run, "energy", theme),
    lambda run, theme: plots.compare([run, run], theme),
], ids=["sheet", "images", "compare"])  # fmt: skip
def test_a_dark_figure_is_dark_and_as_legible_as_the_light_one(draw):
    light, dark = draw(made(label="a"), "light"), draw(made(label="a"), "dark")
    assert light.shape == dark.shape
    background = tuple(int(plots.DARK[0][i : i + 2], 16) / 255 for i in (1, 3, 5))
    black = (dark - torch.tensor([0.0, 0.0, 0.0])).abs().amax(-1) < 0.03
    assert (dark - torch.tensor(background)).abs().amax(-1).lt(0.02).float().mean() > 0.4
    assert (light == 1).all(-1).float().mean() > 0.4 and not (dark == 1).all(-1).float().mean() > 0.01
    assert black.float().mean() < 0.002  # no letter or line stays black on it
