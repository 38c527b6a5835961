"""Records as figures, 1024 pixels wide, readable in grey and for the colour-blind.

matplotlib's object interface with its Agg canvas: pyplot's global state has no place in a server.
"""

import math
import warnings
from collections.abc import Callable, Sequence

import numpy
import torch
from torch import Tensor

from ..choices import LIGHT, MEASURES
from ..text import shown, wrapped
from . import fonts
from .notice import notice
from .record import RunRecord
from .steps import places

AXES = {
    "energy": "energy E  (lower: more coherent)",
    "instability": "instability fraction r",
    "alignment": "alignment, cos(s, h)",
    "eta": "symmetry index η, centred",
    "skew ratio": "‖skew‖ / ‖sym‖",
}
SHEET = MEASURES[:4]
ENERGY = MEASURES[0]
ENERGY_BY_BLOCK = "E as a share of the largest in its block"

# Background of the dark theme, and its letters, which black lines then have the colour of
BLACK = ("#000000", "black", "k")
DARK = "#1E1E1E", "#E6E6E6"

# Okabe and Ito's colours, in an order whose lightness also differs, each with a dash and a marker of its own
STYLES = [
    dict(color="#000000", linestyle="-", marker="o"),
    dict(color="#D55E00", linestyle="--", marker="s"),
    dict(color="#0072B2", linestyle="-.", marker="^"),
    dict(color="#009E73", linestyle=":", marker="D"),
    dict(color="#CC79A7", linestyle="-", marker="v"),
    dict(color="#E69F00", linestyle="--", marker="P"),
]
WIDTH, DPI = 10.24, 100
TITLE = 110, 3  # characters in a line, and lines
MINUS = "\N{MINUS SIGN}"  # a traceback repeats the line that failed, and must be ASCII for any console
MAX_ROWS = 256  # that a heat map grows with


def curves(run: RunRecord, measure: str, theme: str = LIGHT) -> Tensor:
    """One measure over steps, a line for each stage."""
    return _figure(run, 1, 1, 5.4, lambda axes: _curves(axes[0], run, measure), theme)


def heat_map(run: RunRecord, measure: str, theme: str = LIGHT) -> Tensor:
    """One measure by block and step."""
    height = 2.2 + 0.16 * min(max(len(run.info.blocks), 16), MAX_ROWS)
    return _figure(run, 1, 1, height, lambda axes: _heat_map(axes[0], run, measure), theme)


def images(run: RunRecord, measure: str, theme: str = LIGHT) -> Tensor:
    """How one measure is distributed over blocks and steps, image by image."""
    return _figure(run, 1, 1, 5.4, lambda axes: _images(axes[0], run, measure), theme)


def sheet(run: RunRecord, theme: str = LIGHT) -> Tensor:
    """Four measures: their curves and their heat maps."""

    def draw(axes):
        for row, measure in enumerate(SHEET):
            _curves(axes[2 * row], run, measure, legend=row == 0)
            _heat_map(axes[2 * row + 1], run, measure)

    return _figure(run, len(SHEET), 2, 3.3 * len(SHEET) + 0.8, draw, theme)


def compare(runs: Sequence[RunRecord], theme: str = LIGHT) -> Tensor:
    """Overlaid curves of four measures, then for each further run the difference to the first, aligned on sigma."""
    if empty := [f"record {number}" for number, run in enumerate(runs, 1) if not _measured(run)]:
        return notice(f"Nothing was measured in {' and '.join(empty)}, so there is nothing to compare.")
    first, *others = runs
    blocks = [b for b in first.info.blocks if all(b in run.info.blocks for run in others)]
    if not blocks:
        raise ValueError("These records have no block in common: probe the same blocks of the same model in each.")
    for run in others:
        if run.info.space != first.info.space:
            this, that = (f"'{shown(r.info.label)}' was measured in {shown(r.info.space)}" for r in (run, first))
            raise ValueError(f"{this}, {that}: they cannot be compared.")

    def draw(axes):
        for position, measure in enumerate(SHEET):
            axis = axes[position]
            for run, style in zip(runs, STYLES):
                at, mean = aligned(run, first, MEASURES.index(measure), blocks)
                axis.plot(at, mean.mean(axis=1), label=wrapped(run.info.label or "(no label)", 40), markersize=4, **style)
            _label_steps(axis, first)
            axis.set_ylabel(AXES[measure])
            if position == 0:
                axis.legend(fontsize=9)
        for number, run in enumerate(others):
            for position, measure in enumerate(SHEET):
                _difference(axes[4 + 4 * number + position], run, first, measure, blocks)

    title = wrapped("  |  ".join(_setting(run) for run in runs), *TITLE)
    return render(2 + 2 * len(others), 2, 3.1 * (2 + 2 * len(others)) + 0.9, title, draw, theme)


def aligned(run: RunRecord, reference: RunRecord, measure: int, blocks: Sequence[str]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(place on the reference's schedule, mean over branches and images by evaluation and block), steps counted from 1."""
    positions = [run.info.blocks.index(block) for block in blocks]
    values = _mean(run.values[measure][:, positions], axes=(2, 3))
    at = numpy.array(places(run.sigma.tolist(), reference.info.schedule)) + 1
    order = numpy.argsort(at, kind="stable")
    return at[order], values[order]


def difference(run: RunRecord, first: RunRecord, measure: int, blocks: Sequence[str]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(step of the first run, run − first by evaluation and block), at the sigmas that the first run was measured at."""
    at, reference = aligned(first, first, measure, blocks)
    there, values = aligned(run, first, measure, blocks)
    inside = (at >= there.min() - 1e-6) & (at <= there.max() + 1e-6)
    at, reference = at[inside], reference[inside]
    moved = numpy.stack([numpy.interp(at, there, column) for column in values.T], axis=1)
    return at, moved - reference


def _curves(axis, run: RunRecord, measure: str, legend: bool = True) -> None:
    values = run.values[MEASURES.index(measure)]
    at = run.step.numpy() + 1
    order = numpy.argsort(at, kind="stable")
    for (stage, positions), style in zip(run.stages().items(), STYLES):
        by_image = _mean(values[:, positions], axes=(1, 2))[order]
        axis.plot(at[order], _mean(by_image, axes=(1,)), label=f"{wrapped(stage, 24, 1)} ({len(positions)})", markersize=4, **style)
        if by_image.shape[1] > 1:
            low, high = numpy.nanmin(by_image, 1), numpy.nanmax(by_image, 1)
            axis.fill_between(at[order], low, high, color=style["color"], alpha=0.12, linewidth=0)
    if legend:
        axis.legend(title="stage (blocks)", fontsize=9, title_fontsize=9)
    _label_steps(axis, run)
    axis.set_ylabel(AXES[measure])


def _heat_map(axis, run: RunRecord, measure: str) -> None:
    values, label = _mean(run.values[MEASURES.index(measure)], axes=(2, 3)).T, AXES[measure]
    if measure == ENERGY:
        values, label = values / _largest(values), ENERGY_BY_BLOCK
    low, high = _limits(values)
    _grid(axis, values, run.step.numpy() + 1, run.info.blocks, label, cmap="cividis", vmin=low, vmax=high)


def _difference(axis, run: RunRecord, first: RunRecord, measure: str, blocks: Sequence[str]) -> None:
    name, (at, values) = measure, difference(run, first, MEASURES.index(measure), blocks)
    if measure == ENERGY:
        name, values = "share of energy", values / _largest(aligned(first, first, MEASURES.index(measure), blocks)[1].T).T
    most = max(abs(limit) for limit in _limits(values)) or 1.0
    label = wrapped(f"{name}: {run.info.label} {MINUS} {first.info.label}", 40)
    _grid(axis, values.T, at, blocks, label, cmap="cividis", vmin=-most, vmax=most)


def _grid(axis, values, at, blocks, label, **colours) -> None:
    shown = axis.imshow(values, aspect="auto", interpolation="nearest", **colours)
    axis.figure.colorbar(shown, ax=axis, pad=0.02).set_label(label, fontsize=9)
    columns = numpy.unique(numpy.linspace(0, len(at) - 1, min(len(at), 8)).round().astype(int)) if len(at) else []
    axis.set_xticks(columns, [f"{at[c]:g}" if at[c] % 1 == 0 else f"{at[c]:.1f}" for c in columns])
    every = max(1, math.ceil(len(blocks) / 24))
    axis.set_yticks(range(0, len(blocks), every), [wrapped(block, 24, 1) for block in blocks[::every]], fontsize=7)
    axis.set_xlabel("step")
    axis.set_ylabel("block")


def _images(axis, run: RunRecord, measure: str) -> None:
    values = run.values[MEASURES.index(measure)]
    per_image = [column[numpy.isfinite(column)] for column in values.flatten(0, 2).T.numpy()]
    numbers = [n for n, values in enumerate(per_image, 1) if len(values)]
    median = dict(color="#D55E00", linewidth=2)
    axis.boxplot([values for values in per_image if len(values)], positions=numbers, showfliers=False, medianprops=median)
    axis.set_xlabel("image of the batch  (box: middle half over blocks and steps, whiskers: 1.5 boxes)")
    axis.set_ylabel(AXES[measure])
    axis.grid(alpha=0.3)


def _label_steps(axis, run: RunRecord) -> None:
    axis.set_xlabel(f"step of {run.info.steps}")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)


def _limits(values: numpy.ndarray) -> tuple[float, float]:
    """The middle 98 %, so that one wild block does not make the others one colour."""
    finite = values[numpy.isfinite(values)]
    return (0.0, 1.0) if not len(finite) else tuple(numpy.quantile(finite, (0.01, 0.99)))


def _largest(energy: numpy.ndarray) -> numpy.ndarray:
    """The largest size in each row, (block, 1): blocks differ by a thousand times, and one colour scale has to show each."""
    return numpy.fmax.reduce(numpy.abs(energy), axis=1, keepdims=True, initial=numpy.finfo(numpy.float32).tiny)


def _mean(values: Tensor | numpy.ndarray, axes: tuple[int, ...]) -> numpy.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return numpy.nanmean(numpy.asarray(values, dtype=numpy.float64), axis=axes)


def _measured(run: RunRecord) -> bool:
    return bool(run.values.isfinite().any())


def _setting(run: RunRecord) -> str:
    info = run.info
    name = f"{info.label}: " if info.label else ""
    return f"{name}{'; '.join(info.rules) or 'no circulation'}"


def _figure(run: RunRecord, rows: int, columns: int, height: float, draw: Callable, theme: str) -> Tensor:
    info = run.info
    cut_short = "" if info.complete else ", stopped early"
    if not _measured(run):
        return notice(
            f"Nothing was measured in this run of {info.steps} steps. Either its schedule has no step to do, or other nodes took all the "
            "attention calls at the probe's blocks: the summary says which."
        )
    setup = f"{info.family}, {info.sampler}, {info.steps} steps{cut_short}, measured in {info.space}"
    title = "\n".join((wrapped(_setting(run), *TITLE), wrapped(setup, *TITLE)))
    return render(rows, columns, height, title, draw, theme)


def _recolour(figure, background: str, letters: str) -> None:
    """What was drawn black on white. Not by matplotlib's styles, which are global: other nodes may draw meanwhile."""
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    figure.set_facecolor(background)
    for axis in figure.axes:
        axis.set_facecolor(background)
        axis.tick_params(colors=letters)
        for spine in axis.spines.values():
            spine.set_color(letters)
    for text in figure.findobj(Text):
        text.set_color(letters)
    for legend in figure.findobj(Legend):
        legend.get_frame().set(facecolor=background, edgecolor=letters)
    for line in figure.findobj(Line2D):
        if line.get_color() in BLACK:
            line.set_color(letters)


def render(rows: int, columns: int, height: float, title: str, draw: Callable, theme: str = LIGHT) -> Tensor:
    """(1, height, 1024, 3) in 0…1, as ComfyUI's images are."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.text import Text
    except Exception as error:  # whatever a broken installation raises
        return notice(
            f"This graph needs the package matplotlib, which cannot be loaded here: {shown(error, 200)}. "
            "Run 'python -m pip install --upgrade matplotlib' with the Python that ComfyUI uses, and start ComfyUI again. "
            "The summary and the data are complete without it."
        )

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    with warnings.catch_warnings():  # the mean of nothing is NaN, which is what is meant; and not every font has every letter
        warnings.simplefilter("ignore")
        draw(figure.subplots(rows, columns, squeeze=False).flatten())
        for text in figure.findobj(Text):
            text.set_parse_math(False)  # a label is drawn as it is written
            if not text.get_text().isascii():
                text.set_fontfamily(["sans-serif", *fonts.installed()])
        if theme != LIGHT:
            _recolour(figure, *DARK)
        canvas.draw()
    return torch.from_numpy(numpy.asarray(canvas.buffer_rgba())[None, ..., :3].copy()).float().div_(255)
