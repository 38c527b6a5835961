"""The sheet: a row for each setting with its label, a column for each image of a batch. And the curve of diversity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps
from torch import Tensor

from ..records import fonts
from ..records.notice import notice
from ..records.plots import STYLES, render
from ..text import printable, wrapped
from .change import in_bytes
from .measure import Setting

MOST = 4096  # pixels of a side
SMALLEST = 24  # pixels of a cell's longer side
LETTERS, LEGIBLE = 14, 14 / 1024  # pixels of the text's height: no less than so many, and so much of the sheet's width
WIDTHS = (10, 13, 17, 23, 31, 40)  # of the column of labels, in heights of the text: the first that all labels fit in
LINE = 1.25  # heights of the text
LABEL = 400  # characters of a label that are drawn
GAIN = 4  # of differences, which are small
TIMES = "\N{MULTIPLICATION SIGN}"  # a traceback repeats the line that failed, and must be ASCII for any console

BACKGROUND, EMPTY, INK, NOTE, MARK = "white", "#ECECEC", "#000000", "#505050", "#0072B2"
FRAME = "#FF7A00"


@dataclass(frozen=True)
class Options:
    cell: int = 384  # pixels of the longer side of the largest image
    frame: bool = False  # a line around what changed
    difference: bool = False  # a row of differences under each setting
    threshold: float = 0.1  # of a pixel that changed


@dataclass(frozen=True)
class Layout:
    """Where everything is, in pixels of the sheet."""

    font: str  # its file; empty for Pillow's own
    text: int  # its height
    labels: tuple[tuple[str, ...], ...]  # the lines of each setting's label, and of the note below it
    notes: tuple[tuple[str, ...], ...]
    cell: tuple[int, int]  # width, height
    scale: int  # longer side that images are scaled to
    lefts: tuple[int, ...]
    tops: tuple[int, ...]  # of the settings
    below: tuple[int, ...]  # of the rows of differences
    width: int
    height: int

    @property
    def gap(self) -> int:
        return _gap(self.scale)


def layout(batches: Sequence[Tensor], labels: Sequence[str], notes: Sequence[str], options: Options) -> Layout:
    """With cells as large as `options` says, or smaller where the sheet would be larger than 4096. Raises ValueError where it cannot be."""
    sizes = [tuple(batch.shape[2:0:-1]) for batch in batches]
    columns = max(map(len, batches))
    at = partial(_layout, _font_of("".join(labels)), sizes, columns, labels, notes, options.difference)
    found = at(options.cell)
    if _fits(found):
        return found
    fits, too_large = SMALLEST, options.cell
    best = at(fits)
    if not _fits(best):
        rows = f"{len(batches)} settings" + (" with a row of differences each" if options.difference else "")
        raise ValueError(
            f"{rows} and {columns} images in a batch do not fit on a sheet of {MOST} by {MOST} pixels: its cells would be smaller than "
            f"{SMALLEST} pixels or its labels not legible. Compare fewer settings or images, with shorter labels."
        )
    while too_large - fits > 1:
        scale = (fits + too_large) // 2
        found = at(scale)
        if _fits(found):
            fits, best = scale, found
        else:
            too_large = scale
    return best


def sheet(batches: Sequence[Tensor], order: Sequence[int], found: Layout, options: Options) -> Image.Image:
    """The images of batches (number, height, width, channels), columns in the order of their places, by the layout of `layout`."""
    canvas = Image.new("RGB", (found.width, found.height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    letters = font(found.font, found.text)
    for left, place in zip(found.lefts, order):
        draw.text((left + found.cell[0] // 2, found.tops[0] - found.gap), str(place + 1), INK, letters, anchor="ms")
    baseline = [scaled(batches[0], place, found.scale) for place in order]
    for row, (batch, top) in enumerate(zip(batches, found.tops)):
        if row == 0:
            draw.rectangle((0, top, found.text // 3, found.below[0] - found.gap - 1), fill=MARK)
        _text(draw, found, top, found.labels[row], found.notes[row])
        if row and options.difference:
            _text(draw, found, found.below[row], (), (f"difference {TIMES} {GAIN}",))
        comparable = row and (options.frame or options.difference) and batch.shape[1:3] == batches[0].shape[1:3]
        for left, place, first in zip(found.lefts, order, baseline):
            shown = scaled(batch, place, found.scale) if row else first
            before = first if comparable else None
            changed = ImageChops.difference(shown, before) if shown and before else None
            if shown and changed and options.frame:
                shown.paste(FRAME, mask=outline(changed, options.threshold, max(3, found.gap)))
            _place(canvas, shown, left, top, found.cell)
            if row and options.difference:
                _place(canvas, changed and changed.point(lambda value: min(255, GAIN * value)), left, found.below[row], found.cell)
    return canvas


def scaled(batch: Tensor, place: int, longer: int, enlarge: bool = True) -> Image.Image | None:
    """An image of a batch as large as its longer side says; None where the batch is shorter."""
    if place >= len(batch):
        return None
    image = Image.fromarray(in_bytes(batch[place]))
    if max(image.size) == longer or (max(image.size) < longer and not enlarge):
        return image
    return image.resize(_scaled(image.size, longer), Image.Resampling.LANCZOS)


def outline(difference: Image.Image, threshold: float, width: int) -> Image.Image:
    """A mask of the line around the pixels that differ by more than a threshold, 0 to 1, in any colour; near ones share a line."""
    most = numpy.asarray(difference).max(axis=2)
    changed = Image.fromarray(numpy.where(most > 255 * threshold, 255, 0).astype(numpy.uint8))
    near = changed.filter(ImageFilter.MaxFilter(2 * width + 1))
    line = max(2, width // 2)
    inner = ImageOps.expand(near, line).filter(ImageFilter.MinFilter(2 * line + 1))
    return ImageChops.difference(near, ImageOps.crop(inner, line))


@cache
def font(file: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)


def _font_of(text: str) -> str:
    """A file with the letters of a text; empty, which stands for what comes with Pillow, where there is none."""
    try:
        file = fonts.file_of(text)
        font(file, LETTERS)
        return file
    except Exception:  # whatever a broken installation raises
        return ""


def lines_of(text: str, width: float, size: int, file: str) -> tuple[str, ...]:
    """A text in lines of at most so many pixels: at its own ends of lines, at spaces where it can be, else within words."""
    length = font(file, size).getlength
    lines: list[str] = []
    for paragraph in text[:LABEL].splitlines():
        line = ""
        for word in _pieces(printable(" ".join(paragraph.split())), width, length):
            longer = f"{line} {word}".strip()
            if line and length(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return tuple(lines)


def curve(settings: Sequence[Setting]) -> Tensor:
    """Diversity against the score where there is one, else against change: (1, height, 1024, 3) in 0 to 1."""
    scored = all(setting.score is not None for setting in settings)
    places = [setting.score if scored else 100 * (setting.mean_change or 0.0) for setting in settings]
    if any(setting.diversity is None for setting in settings):
        return notice("Diversity is how different the images of one setting are: it needs at least two images of each.")
    if not scored and any(setting.mean_change is None for setting in settings[1:]):
        return notice("Change is measured between images of one size: these settings have others than the first, so there is no curve.")
    measures = ("mean pairwise distance", "distance"), ("Vendi score", "vendi")

    def draw(axes):
        for area, (name, of) in zip(axes, measures):
            for number, (setting, place) in enumerate(zip(settings, places)):
                estimate = getattr(setting.diversity, of)
                low, high = estimate.interval or (estimate.value, estimate.value)
                style = {**STYLES[number % len(STYLES)], "linestyle": "none", "capsize": 3}
                bar = [[estimate.value - low], [high - estimate.value]] if estimate.interval else None
                area.errorbar([place], [estimate.value], yerr=bar, label=f"{number + 1}  {_short(setting.label)}", **style)
                area.annotate(str(number + 1), (place, estimate.value), textcoords="offset points", xytext=(5, 4), fontsize=9)
            area.set_xlabel("score" if scored else "mean change against the first, %")
            area.set_ylabel(f"{name}, {settings[0].space}")
            area.margins(x=0.15)
            area.grid(alpha=0.3)
        axes[2].legend(*axes[0].get_legend_handles_labels(), loc="center left", fontsize=9, frameon=False)
        axes[2].axis("off")

    title = "Diversity within the images of each setting. Bars: 95 % intervals, where there are any."
    return render(1, 3, max(5.0, 1 + 0.19 * sum(_short(setting.label).count("\n") + 1 for setting in settings)), title, draw)


def _short(label: str) -> str:
    return wrapped(label, 36, 2)


def _layout(file: str, sizes, columns: int, labels: Sequence[str], notes: Sequence[str], difference: bool, scale: int) -> Layout:
    """With the narrowest column in which no label is higher than a cell; where there is none, the one that makes the smallest sheet."""
    tried = []
    for width in WIDTHS:
        tried.append(_with_labels(width, file, sizes, columns, labels, notes, difference, scale))
        if max(below - top for top, below in zip(tried[-1].tops, tried[-1].below)) <= tried[-1].cell[1] + tried[-1].gap:
            return tried[-1]
    return min(tried, key=lambda found: max(found.width, found.height))


def _with_labels(
    width: int, file: str, sizes, columns: int, labels: Sequence[str], notes: Sequence[str], difference: bool, scale: int
) -> Layout:
    boxes = [_scaled(size, scale) for size in sizes]
    cell = max(width for width, _ in boxes), max(height for _, height in boxes)
    gap = _gap(scale)
    images = columns * (cell[0] + gap)
    text = max(LETTERS, round(LEGIBLE * images / (1 - LEGIBLE * (width + 1))))
    first = (width + 1) * text
    inside = partial(lines_of, width=width * text, size=text, file=file)
    texts = tuple(inside(label) for label in labels), tuple(_joined(note, inside) for note in notes)
    top = round(LINE * text) + gap
    tops, below = [], []
    for row, (label, note) in enumerate(zip(*texts)):
        tops.append(top)
        top += max(cell[1], _height(len(label) + len(note), text)) + gap
        below.append(top)
        if difference and row:
            top += max(cell[1], _height(1, text)) + gap
    lefts = tuple(first + column * (cell[0] + gap) for column in range(columns))
    return Layout(file, text, *texts, cell, scale, lefts, tuple(tops), tuple(below), first + images, top)


def _fits(found: Layout) -> bool:
    return max(found.width, found.height) <= MOST


def _joined(note: str, inside: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    """The lines of a note, or all of it in one line where that is wide enough."""
    one = inside(note.replace("\n", ", "))
    return one if len(one) == 1 else inside(note)


def _gap(scale: int) -> int:
    return max(2, scale // 64)


def _scaled(size: tuple[int, int], longer: int) -> tuple[int, int]:
    width, height = (max(1, round(side * longer / max(size))) for side in size)
    return width, height


def _height(lines: int, text: int) -> int:
    return round(LINE * text * lines)


def _pieces(text: str, width: float, length) -> Iterator[str]:
    """Words, and of words wider than a line what fits in one."""
    for word in text.split(" "):
        while length(word) > width and len(word) > 1:
            fits = next(end for end in range(len(word) - 1, 0, -1) if end == 1 or length(word[:end]) <= width)
            yield word[:fits]
            word = word[fits:]
        yield word


def _text(draw: ImageDraw.ImageDraw, found: Layout, top: int, label: Sequence[str], note: Sequence[str]) -> None:
    """In the middle of its row."""
    height = _height(len(label) + len(note), found.text)
    y = top + max(0, found.cell[1] - height) // 2
    for number, line in enumerate((*label, *note)):
        ink = INK if number < len(label) else NOTE
        draw.text((found.text // 2 + 2, y + _height(number, found.text)), line, ink, font(found.font, found.text))


def _place(canvas: Image.Image, image: Image.Image | None, left: int, top: int, cell: tuple[int, int]) -> None:
    canvas.paste(EMPTY, (left, top, left + cell[0], top + cell[1]))
    if image is not None:
        canvas.paste(image, (left + (cell[0] - image.width) // 2, top + (cell[1] - image.height) // 2))
