"""The sheet as it is drawn, and the node."""

from itertools import pairwise

import folder_paths
import numpy
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw
from support.host import engine, node, with_hidden
from support.memory import peak

draw, measure, fonts = engine("comparison.draw"), engine("comparison.measure"), engine("records.fonts")
LONG = "alpha 1.05, beta 3, one pass, start 0.2, end 0.8 on middle, output.3-5, !output.4"


def images(count, height=64, width=64, level=None, seed=0):
    if level is not None:
        return torch.full((count, height, width, 3), level)
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def drawn(batches, labels, order=None, **options):
    options = draw.Options(**options)
    found = draw.layout(batches, labels, ["baseline"] + ["changed 4.2 %\n3 of 8 visibly"] * (len(labels) - 1), options)
    order = order or range(len(found.lefts))
    return numpy.asarray(draw.sheet(batches, order, found, options)), found


def cell_of(canvas, found, row, column, tops=None):
    top, left = (tops or found.tops)[row], found.lefts[column]
    return canvas[top : top + found.cell[1], left : left + found.cell[0]]


SHAPES = {
    "one": ([images(1)], [LONG]),
    "2 x 2": ([images(2)] * 2, ["off", LONG]),
    "8 x 8": ([images(8)] * 8, ["off", *[LONG] * 7]),
    "8 x 8 wide": ([images(8, 64, 112)] * 8, ["off", *[LONG] * 7]),
    "64 rows": ([images(2)] * 64, [LONG] * 64),
    "64 rows tall": ([images(2, 112, 64)] * 64, [LONG] * 64),
    "frames": ([images(81, 36, 64)] * 5, [LONG] * 5),
    "sizes": ([images(2, 64, 96), images(3, 96, 64), images(1, 200, 20)], ["a", "b", LONG]),
}


@pytest.fixture
def texts(monkeypatch):
    """What is written where: (box, text)."""
    seen = []
    write = ImageDraw.ImageDraw.text

    def noting(self, at, text, fill=None, font=None, anchor=None, **options):
        seen.append((self.textbbox(at, text, font=font, anchor=anchor), text))
        return write(self, at, text, fill, font, anchor, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noting)
    return seen


@pytest.mark.parametrize("batches, labels", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("difference", [False, True], ids=["", "differences"])
def test_every_label_is_whole_beside_its_row_and_legible_at_1024_pixels(texts, batches, labels, difference):
    if difference and len(batches) == 64:
        with pytest.raises(ValueError, match="64 settings with a row of differences each and 2 images in a batch do not fit"):
            drawn(batches, labels, difference=True)
        return
    canvas, found = drawn(batches, labels, difference=difference)
    assert canvas.shape == (found.height, found.width, 3) and max(canvas.shape) <= 4096
    assert found.text >= 13 and found.text * min(1, 1024 / found.width) > 13
    tops = [*found.tops, found.height]
    for label, top, bottom in zip(labels, tops, tops[1:]):
        beside = [(box, text) for box, text in texts if box[0] < found.lefts[0] and top <= (box[1] + box[3]) / 2 < bottom]
        assert "".join(text for _, text in beside).replace(" ", "").startswith(label.replace(" ", ""))
        assert all(top <= box[1] and box[3] <= bottom and box[2] <= found.lefts[0] for box, _ in beside)
        for (above, _), (below, _) in pairwise(beside):
            assert above[3] <= below[1] + 2  # lines do not lie on each other
    numbers = [(box, text) for box, text in texts if box[0] >= found.lefts[0]]
    assert [text for _, text in numbers] == [str(place + 1) for place in range(len(found.lefts))]
    assert all(box[3] <= found.tops[0] for box, _ in numbers)
    if len(numbers) < 20:
        assert all(left <= box[0] and box[2] <= left + found.cell[0] for (box, _), left in zip(numbers, found.lefts))


def test_an_image_of_the_cells_size_is_drawn_pixel_by_pixel():
    batches = [images(3, 96, 128), images(3, 96, 128, seed=1)]
    canvas, found = drawn(batches, ["a", "b"], cell=128)
    assert found.cell == (128, 96)
    for row, batch in enumerate(batches):
        for column, image in enumerate(batch):
            assert (cell_of(canvas, found, row, column) == (image * 255).round().byte().numpy()).all()


def test_columns_lie_in_the_order_that_is_asked_for(texts):
    batch = torch.stack([torch.full((64, 64, 3), level) for level in (0.2, 0.4, 0.6)])
    canvas, found = drawn([batch], ["a"], order=[2, 0, 1])
    assert [round(cell_of(canvas, found, 0, column).mean() / 255, 1) for column in range(3)] == [0.6, 0.2, 0.4]
    assert [text for box, text in texts if box[0] >= found.lefts[0]] == ["3", "1", "2"]


def test_images_of_other_sizes_keep_their_shape_and_a_missing_one_is_a_grey_cell():
    canvas, found = drawn([images(2, 64, 64, level=0.0), images(1, 32, 64, level=0.0)], ["a", "b"], cell=64)
    wide = cell_of(canvas, found, 1, 0)
    assert (wide[16:48] == 0).all() and (wide[:16] == 0xEC).all() and (wide[48:] == 0xEC).all()
    assert (cell_of(canvas, found, 1, 1) == 0xEC).all()


def test_the_baseline_is_marked_and_no_other_row():
    canvas, found = drawn([images(2)] * 3, ["a"] * 3)
    blue = [(canvas[top : top + found.cell[1], 0] == (0x00, 0x72, 0xB2)).all() for top in found.tops]
    assert blue == [True, False, False]


@pytest.fixture
def patched():
    """A grey batch, and the same with a square of 20 × 20 pixels brighter by 30 % in its second image."""
    before = images(2, 128, 128, level=0.4)
    after = before.clone()
    after[1, 40:60, 70:90] += 0.3
    return [before, after]


@pytest.mark.parametrize("threshold, framed", [(0.1, True), (0.35, False)])
def test_a_frame_lies_around_what_changed(patched, threshold, framed):
    canvas, found = drawn(patched, ["a", "b"], cell=128, frame=True, threshold=threshold)
    orange = (cell_of(canvas, found, 1, 1) == (0xFF, 0x7A, 0x00)).all(axis=-1)
    assert orange.any() == framed
    if framed:
        ys, xs = orange.nonzero()
        assert 34 <= ys.min() < 40 and 60 <= ys.max() < 66 and 64 <= xs.min() < 70 and 90 <= xs.max() < 96
        assert not orange[40:60, 70:90].any() and orange[50].any() and orange[:, 80].any()
    for row, column in ((0, 0), (0, 1), (1, 0)):
        assert (cell_of(canvas, found, row, column) == 102).all()


def test_a_row_of_differences_is_black_where_nothing_changed(patched):
    canvas, found = drawn([*patched, images(2, 100, 128)], ["a", "b", "c"], cell=128, difference=True)
    same, other, sizes = (cell_of(canvas, found, row, column, found.below) for row, column in ((1, 0), (1, 1), (2, 0)))
    assert (same == 0).all() and (sizes == 0xEC).all()
    assert (other[40:60, 70:90] == 255).all() and other.sum() == 20 * 20 * 3 * 255
    assert found.tops[2] - found.tops[1] > 2 * found.cell[1]


def test_a_sheet_is_as_large_as_it_may_be_and_not_larger():
    found = draw.layout([images(8)] * 8, ["off"] * 8, [""] * 8, draw.Options(cell=384))
    assert found.scale == 384
    found = draw.layout([images(8)] * 8, ["off"] * 8, [""] * 8, draw.Options(cell=1024))
    assert 0.9 * 4096 < max(found.width, found.height) <= 4096


@pytest.mark.parametrize("batches, labels", [
    ([images(300, 8, 8)] * 2, ["a", "b"]),
    ([images(1, 8, 8)] * 200, ["a"] * 200),
    ([images(1)] * 64, ["x " * 400] * 64),
], ids=["columns", "rows", "labels"])  # fmt: skip
def test_what_does_not_fit_is_refused_in_words(batches, labels):
    with pytest.raises(ValueError, match=rf"{len(batches)} settings and {len(batches[0])} images in a batch do not fit on a sheet of 4096"):
        drawn(batches, labels)


@pytest.mark.parametrize("label", ["$\\frac{$", "输入 é", "\ud800\x00\u202e", "W" * 80, "x" * 16_000, "   "])
def test_any_label_can_be_drawn(texts, label):
    _, found = drawn([images(2)] * 2, ["off", label])
    assert all(text.isprintable() for _, text in texts)
    assert all(box[2] <= found.lefts[0] for box, text in texts if not text.isdigit())


def test_without_matplotlib_the_text_is_drawn_with_pillows_font(monkeypatch, texts):
    import matplotlib

    def broken():
        raise RuntimeError("no data")

    monkeypatch.setattr(matplotlib, "get_data_path", broken)
    canvas, found = drawn([images(2)] * 2, ["off", LONG])
    assert found.font == "" and (canvas[:, : found.lefts[0]] < 100).any() and len(texts) > 6


@pytest.fixture
def chinese(tmp_path, monkeypatch):
    """A font of this machine with two Chinese letters: a block, and half of one."""
    from matplotlib import font_manager

    def block(width):
        pen = TTGlyphPen(None)
        for move, place in zip((pen.moveTo, pen.lineTo, pen.lineTo, pen.lineTo), ((0, 0), (0, 900), (width, 900), (width, 0))):
            move(place)
        pen.closePath()
        return pen.glyph()

    made = FontBuilder(1000)
    made.setupGlyphOrder([".notdef", "whole", "half"])
    made.setupCharacterMap({ord("\u8f93"): "whole", ord("\u5165"): "half", **dict.fromkeys(range(32, 127), "half")})
    made.setupGlyf({".notdef": block(100), "whole": block(900), "half": block(450)})
    made.setupHorizontalMetrics(dict.fromkeys([".notdef", "whole", "half"], (1000, 0)))
    made.setupHorizontalHeader(ascent=900, descent=-100)
    made.setupNameTable({"familyName": "Chinese of the test", "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    made.save(tmp_path / "chinese.ttf")
    monkeypatch.setattr(fonts, "FAMILIES", ("Not there", "Chinese of the test"))
    fonts.installed.cache_clear()
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist])
    font_manager.fontManager.addfont(tmp_path / "chinese.ttf")
    yield str(tmp_path / "chinese.ttf")
    fonts.installed.cache_clear()


def pictures_of(label):
    """With a label: the sheet's labels, and the curve."""
    batches = [images(2)] * 2
    canvas, found = drawn(batches, ["off", label])
    return found.font, canvas[:, : found.lefts[0]], draw.curve(measure.measured(batches, ["off", label]))


def test_letters_that_dejavu_does_not_have_are_drawn_with_a_font_of_the_machine(chinese):
    (font, sheet, curve), (_, other_sheet, other_curve) = pictures_of("a \u8f93\u5165"), pictures_of("a \u5165\u8f93")
    assert font == chinese
    assert (sheet != other_sheet).any() and (curve != other_curve).any()
    assert pictures_of("alpha 1.2 \u00d7 \u03b2")[0].endswith("DejaVuSans.ttf")


def test_where_no_font_has_the_letters_they_are_boxes(monkeypatch):
    monkeypatch.setattr(fonts, "FAMILIES", ())
    fonts.installed.cache_clear()
    (font, sheet, curve), (_, other_sheet, other_curve) = pictures_of("a \u8f93\u5165"), pictures_of("a \u5165\u8f93")
    fonts.installed.cache_clear()
    assert font.endswith("DejaVuSans.ttf") and (sheet == other_sheet).all() and (curve == other_curve).all()


# --- the curve


@pytest.fixture
def axes(monkeypatch):
    """Names of the axes and the points of each figure."""
    from matplotlib.axes import Axes

    seen = {"names": [], "x": []}
    name, bar = Axes.set_xlabel, Axes.errorbar
    monkeypatch.setattr(Axes, "set_xlabel", lambda self, text, *a, **k: seen["names"].append(text) or name(self, text, *a, **k))
    monkeypatch.setattr(Axes, "errorbar", lambda self, x, *a, **k: seen["x"].extend(x) or bar(self, x, *a, **k))
    return seen


def test_the_curve_is_against_scores_or_else_change(axes):
    batches = [images(4, level=None), images(4, seed=1)]
    plain = draw.curve(measure.measured(batches, ["off", LONG]))
    assert plain.shape[0] == 1 and plain.shape[2:] == (1024, 3)
    assert set(axes["names"]) == {"mean change against the first, %"} and axes["x"][0] == 0 < axes["x"][1]
    axes["names"].clear(), axes["x"].clear()
    draw.curve(measure.measured(batches, ["off", LONG], [(3.0,), (1.0, 2.0)]))
    assert set(axes["names"]) == {"score"} and axes["x"] == [3, 1.5] * 2


@pytest.mark.parametrize("batches", [[images(1)] * 2, [images(2), images(2, 32, 32)]], ids=["one image", "sizes"])
def test_where_there_is_no_curve_it_says_why(batches, axes):
    graph = draw.curve(measure.measured(batches, ["a", "b"]))
    assert graph.shape[2:] == (1024, 3) and (graph < 0.5).any() and not axes["x"]


def test_a_curve_of_64_settings_names_them_all():
    assert draw.curve(measure.measured([images(2)] * 64, [LONG] * 64)).shape[1] > 1500


# --- the node


@pytest.fixture
def sheet(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    cls = with_hidden("ComparisonSheet", PROMPT={"1": {}}, EXTRA_PNGINFO={"workflow": {"nodes": []}})

    def run(images, labels, **inputs):
        return cls.execute(images, labels, **{name: value if isinstance(value, list) else [value] for name, value in inputs.items()})

    return run


def opened(tmp_path, entry):
    assert entry["type"] == "temp" and entry["subfolder"] == ""
    return Image.open(tmp_path / entry["filename"])


def test_the_node_gives_sheet_curve_table_and_data_and_shows_the_sheet(sheet, tmp_path):
    batches = [images(2), images(3, 1200, 600, seed=1)]
    output = sheet(batches, ["off", "alpha 1.05, beta 3"])
    picture, curve, text, data = output.result
    assert picture.dtype == torch.float32 and picture.shape[0] == 1 and picture.min() >= 0 and picture.max() == 1
    assert curve.shape[2:] == (1024, 3) and text.startswith("| setting") and data.startswith("setting,label")
    (shown,) = output.ui["images"]
    seen = opened(tmp_path, shown)
    assert (numpy.asarray(seen) == (picture[0] * 255).round().byte().numpy()).all()
    assert set(seen.text) == {"prompt", "workflow"}  # so that it can be dropped into ComfyUI


def test_the_browser_gets_a_picture_of_each_cell(sheet, tmp_path):
    batches = [images(2), images(3, 1200, 600, seed=1)]
    (message,) = sheet(batches, ["off", "alpha 1.05, beta 3"]).ui["comparison"]
    assert message["labels"] == ["off", "alpha 1.05, beta 3"] and message["baseline"] == 0 and message["columns"] == 3
    assert message["cells"][0][2] is None and [len(row) for row in message["cells"]] == [3, 3]
    assert opened(tmp_path, message["cells"][0][1]).size == (64, 64)  # not enlarged
    assert opened(tmp_path, message["cells"][1][0]).size == (512, 1024)
    assert (numpy.asarray(opened(tmp_path, message["cells"][0][0])) == (batches[0][0] * 255).round().byte().numpy()).all()


def test_sorted_columns_are_sorted_for_the_browser_too(sheet, tmp_path):
    first = images(3, level=0.5)
    second = first + torch.tensor([0.0, 0.2, 0.1]).reshape(3, 1, 1, 1)
    (message,) = sheet([first, second], ["a", "b"], sort_columns=True).ui["comparison"]
    means = [round(numpy.asarray(opened(tmp_path, cell)).mean() / 255, 1) for cell in message["cells"][1]]
    assert means == [0.7, 0.6, 0.5]


def test_options_reach_the_sheet(sheet):
    batches = [images(2, 128, 128), images(2, 128, 128, seed=1)]
    plain = sheet(batches, ["a", "b"]).result[0]
    for options in ({"cell": 128}, {"frame_changes": True}, {"difference_row": True}):
        assert not torch.equal(sheet(batches, ["a", "b"], **options).result[0], plain)
    framed, calm = (sheet(batches, ["a", "b"], frame_changes=True, threshold=t).result[0] for t in (0.1, 1.0))
    assert not torch.equal(framed, calm) and torch.equal(calm, plain)


@pytest.mark.parametrize("inputs, words", [
    ({"labels": ["a", "b", "c"]}, "images has 2 batches and labels has 3 entries"),
    ({"scores": [1.0, 2.0, 3.0]}, "images has 2 batches and scores has 3 entries"),
    ({"stability": ["x"]}, "stability is 'x' and must be a record"),
    ({"cell": 5}, "cell is 5"),
    ({"threshold": 2.0}, "threshold is 2"),
    ({"images": ["x", "y"]}, "Batch 1 of images is 'x'"),
    ({"images": []}, "images is an empty list"),
    ({"cell": [384, 256]}, "cell is a list of 2 values"),
    ({"sort_columns": []}, "sort_columns is a list of 0 values"),
    ({"scores": [1.0, 10**400]}, "scores has 1000"),
    ({"clip_vision": "x"}, "clip_vision is 'x'"),
])  # fmt: skip
def test_wrong_inputs_are_named(sheet, inputs, words):
    with pytest.raises(ValueError, match=words):
        sheet(**{"images": [images(2)] * 2, "labels": ["a", "b"], **inputs})


@pytest.mark.parametrize("count, rows, cell", [(3, 3, 1024), (2, 2, 384)])
def test_memory_is_less_than_three_times_the_sheets(sheet, count, rows, cell):
    """The profiler sees PyTorch's. Pillow and NumPy also have the sheet, at 4 and 3 bytes a pixel of 12; before, an image at a time."""
    batches, drawn = [images(count, 1024, 1024, level=0.5)] * rows, []
    held = peak(lambda: drawn.append(sheet(batches, ["a"] * rows, cell=cell).result[0]))
    size = drawn[0].nbytes
    assert held + 7 / 12 * size <= 3 * size, (held / size, size)


def test_a_vision_model_is_asked_for_embeddings(sheet):
    class Vision:
        def encode_image(self, images):
            return {"image_embeds": images.mean(dim=(1, 2))}

    assert "mean distance, CLIP vision" in sheet([images(4)] * 2, ["a", "b"], clip_vision=Vision()).result[2]


def test_the_node_is_found_by_the_words_people_use():
    schema = node("ComparisonSheet").GET_SCHEMA()
    assert schema.is_input_list and schema.is_output_node
    if hasattr(schema, "search_aliases"):
        assert {"xy plot", "compare images", "grid", "circulation sheet"} <= set(schema.search_aliases)
