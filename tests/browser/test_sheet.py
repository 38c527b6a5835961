"""Comparison Sheet in the real front ends: its cells, and the slider between two images."""

import io
import itertools

import numpy
import pytest
from PIL import Image
from support.screen import Screen, small_graph
from support.workflows import workflow

seeds = itertools.count(1)
OFF, CHANGED = "off (baseline)", "alpha 3, beta 8"
NAMES = [f"{row}, column {column}" for row in (OFF, CHANGED) for column in (1, 2)]


@pytest.fixture(scope="module")
def run(page):
    """A sweep of two settings, with two images of each, was sampled and is on the sheet."""
    screen = Screen(page)
    graph = small_graph(workflow("circulation-basic"), steps=2, seed=next(seeds))
    kept = {"CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage"}
    first = next(node["id"] for node in graph["nodes"] if node["type"] == "KSampler")
    graph["nodes"] = [node for node in graph["nodes"] if node["type"] in kept or node["id"] in (first, first + 1)]
    ids = {node["id"] for node in graph["nodes"]}
    graph["links"] = [link for link in graph["links"] if link[1] in ids and link[3] in ids]
    for node in graph["nodes"]:
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"] = [64, 64, 2]
        for slot in node["outputs"]:
            slot["links"] = [link[0] for link in graph["links"] if link[0] in (slot["links"] or [])]
    screen.load(graph)
    page.evaluate("""() => {
        const find = type => app.graph.nodes.find(node => node.type === type);
        const add = (type, pos) => { const node = LiteGraph.createNode(type); node.pos = pos; app.graph.add(node); return node; };
        const connect = (from, slot, to, input) => from.connect(slot, to, to.findInputSlot(input));
        const [sweep, sheet] = [add("CirculationSweep", [500, 620]), add("ComparisonSheet", [1600, 0])];
        sweep.widgets.find(({ name }) => name === "alpha").value = "3";
        sweep.widgets.find(({ name }) => name === "beta").value = "8";
        connect(find("CheckpointLoaderSimple"), 0, sweep, "model");
        connect(sweep, 0, find("KSampler"), "model");
        connect(find("VAEDecode"), 0, sheet, "images");
        connect(sweep, 1, sheet, "labels");
    }""")
    screen.load(screen.saved())
    assert screen.text("ComparisonSheet") == "Nothing compared yet."
    screen.queue()
    return screen.finished()


@pytest.fixture
def sheet(run, screen):
    screen.load(screen.saved())
    screen.look_at("ComparisonSheet")
    loaded(screen)
    return screen


def loaded(screen):
    """Waits until every image that can be seen is there."""
    seen = "[...widget('ComparisonSheet').querySelectorAll('img')].filter(image => image.checkVisibility())"
    screen.wait(lambda: screen.js(f"{seen}.every(image => image.complete && image.naturalWidth === 64)"))


def cells(screen):
    return screen.widget("ComparisonSheet").query_selector_all(".cells button")


def slider(screen):
    return screen.widget("ComparisonSheet").query_selector("[role=slider]:not([hidden])")


def value(screen):
    return int(slider(screen).get_attribute("aria-valuenow"))


def shown(screen):
    """The pixels of the slider, with the edge out of sight."""
    loaded(screen)
    screen.settle(2)
    return numpy.asarray(Image.open(io.BytesIO(slider(screen).screenshot())).convert("RGB"), int)


def test_each_image_is_a_cell_with_its_name(sheet, run):
    (message,) = next(output["comparison"] for output in run.values() if "comparison" in output)
    assert [cell.get_attribute("aria-label") for cell in cells(sheet)] == NAMES
    for cell, file in zip(cells(sheet), [file for row in message["cells"] for file in row]):
        assert file["filename"] in cell.query_selector("img").get_attribute("src")
    assert min(cell.bounding_box()["height"] for cell in cells(sheet)) > 40
    assert sheet.overflowing("ComparisonSheet") == []


def test_the_mouse_moves_the_edge_between_two_images(sheet, page):
    where = "[...app.graph.nodes.map(node => [...node.pos]).flat(), ...app.canvas.ds.offset]"
    before = page.evaluate(where)
    cells(sheet)[3].click()
    box = slider(sheet).bounding_box()

    def drag(start, end):
        page.mouse.move(box["x"] + box["width"] * start, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * end, box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()

    assert value(sheet) == 50
    drag(0.5, 1.2)
    assert value(sheet) == 100
    baseline = shown(sheet)
    drag(0.9, -0.2)
    assert value(sheet) == 0
    changed = shown(sheet)
    drag(0.2, 0.4)
    assert value(sheet) == pytest.approx(40, abs=1)
    both = shown(sheet)
    edge = round(both.shape[1] * 0.4)
    assert abs(baseline - changed).mean() > 2
    for side, image in ((slice(8, edge - 8), baseline), (slice(edge + 8, -8), changed)):
        assert abs(both[:, side] - image[:, side]).mean() < 0.5
    page.mouse.move(box["x"] + 9, box["y"] + 9)  # without the button
    assert value(sheet) == pytest.approx(40, abs=1)
    assert sheet.text("ComparisonSheet", ".note") == f"{OFF} | {CHANGED}, column 2"
    assert page.evaluate(where) == before
    sheet.widget("ComparisonSheet").query_selector("button:text-is('Back')").click()
    assert slider(sheet) is None and cells(sheet)[3].is_visible()


def test_over_a_cell_the_pointer_is_the_edge_and_nothing_else_moves(sheet, page):
    baseline, cell = cells(sheet)[1], cells(sheet)[3]

    def seen(element):
        loaded(sheet)
        sheet.settle(2)
        return numpy.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB"), int)

    def over(element, x):
        box = element.bounding_box()
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] / 2)

    places = [each.bounding_box() for each in cells(sheet)]
    left, right = seen(baseline), seen(cell)
    over(cell, 0.5)
    both = seen(cell)
    middle = both.shape[1] // 2
    assert abs(left - right)[8:-8].mean() > 2
    assert abs(both - left)[8:-8, 8 : middle - 8].mean() < 0.5 and abs(both - right)[8:-8, middle + 8 : -8].mean() < 0.5
    over(cell, 0.9)
    assert abs(seen(cell) - left)[8:-8, 8 : middle + 8].mean() < 0.5
    assert sheet.text("ComparisonSheet", ".note") == f"{OFF} | {CHANGED}, column 2"
    over(baseline, 0.5)
    assert abs(seen(cell) - right)[8:-8, 8:-8].mean() < 0.5  # and it is left
    assert abs(seen(baseline) - left)[8:-8, 8:-8].mean() < 0.5  # itself has nothing to be compared with
    assert sheet.text("ComparisonSheet", ".note").startswith("Point at a cell")
    assert [each.bounding_box() for each in cells(sheet)] == places and slider(sheet) is None


def test_the_keyboard_chooses_a_cell_and_moves_the_edge(sheet, page):
    cells(sheet)[0].focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    assert sheet.focused() == f"sheet {CHANGED}, column 1"
    page.keyboard.press("Enter")
    assert sheet.focused().startswith(f"sheet {CHANGED}, column 1, over the baseline's")
    reached = []
    for key in ("ArrowLeft", "ArrowLeft", "ArrowRight", "PageUp", "End", "ArrowRight", "Home", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
        reached.append(value(sheet))
    assert reached == [48, 46, 48, 58, 100, 100, 0, 0, 2]
    page.keyboard.press("Escape")
    assert slider(sheet) is None and sheet.focused() == f"sheet {CHANGED}, column 1"


def test_it_is_there_again_in_the_other_renderer_in_other_tabs_and_after_a_reload(sheet):
    for _ in range(2):
        sheet.toggle_renderer()
        assert len(cells(sheet)) == 4
    sheet.elsewhere(workflow("stability-readout"))
    sheet.back()
    assert len(cells(sheet)) == 4
    sheet.reload()
    assert len(cells(sheet)) == 4
    sheet.look_at("ComparisonSheet")
    cells(sheet)[2].click()
    assert value(sheet) == 50


def test_over_it_the_wheel_zooms_and_the_middle_button_pans(sheet, page):
    nodes = page.evaluate("app.graph.nodes.length")
    sheet.js("app.canvas.selectItems([node('CirculationSweep')])")
    page.evaluate("() => document.activeElement?.blur?.()")
    page.keyboard.press("Control+c")
    box = cells(sheet)[0].bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    scale = page.evaluate("app.canvas.ds.scale")
    page.mouse.wheel(0, -120)
    sheet.wait(lambda: page.evaluate("app.canvas.ds.scale") > scale)
    sheet.settle(4)
    offset = numpy.array(page.evaluate("[...app.canvas.ds.offset]"))
    page.mouse.down(button="middle")
    page.mouse.move(box["x"] + 80, box["y"] + 60, steps=4)
    page.mouse.up(button="middle")
    sheet.settle(4)
    moved = (page.evaluate("[...app.canvas.ds.offset]") - offset) * page.evaluate("app.canvas.ds.scale")
    assert moved == pytest.approx([60, 40], abs=2)
    assert page.evaluate("app.graph.nodes.length") == nodes  # nothing was pasted
    assert slider(sheet) is None


@pytest.fixture
def tell(sheet, run):
    """Shows another comparison in the place of the run's, which comes back in the end."""

    def show(comparison):
        sheet.js("""window.comfyAPI.api.api.dispatchEvent(new CustomEvent("executed", {
            detail: { node: String(node("ComparisonSheet").id), prompt_id: "none", output: { comparison: [values[0]] } },
        }))""", comparison)  # fmt: skip

    yield show
    (comparison,) = next(output["comparison"] for output in run.values() if "comparison" in output)
    show(comparison)
    sheet.wait(lambda: len(cells(sheet)) == 4)


def test_shorter_batches_leave_places_empty_and_many_rows_can_be_reached(sheet, run, page, tell):
    ((*_, (file, _)),) = [output["comparison"][0]["cells"] for output in run.values() if "comparison" in output]
    files = [[file, None], [file, file], [None, file], *[[file, file]] * 61]
    tell(dict(labels=[f"row {row}" for row in range(64)], baseline=0, columns=2, cells=files))
    sheet.wait(lambda: len(cells(sheet)) == 126)
    cells(sheet)[0].focus()
    for key, name in [("ArrowRight", "row 1, column 1"), ("ArrowDown", "row 3, column 1"), ("ArrowRight", "row 3, column 2")]:
        page.keyboard.press(key)
        assert sheet.focused() == f"sheet {name}"
    page.keyboard.press("Enter")
    assert sheet.text("ComparisonSheet", ".note") == "no image | row 3, column 2"
    page.keyboard.press("Escape")
    last = cells(sheet)[-1]
    last.focus()
    inside, box = sheet.widget("ComparisonSheet").bounding_box(), last.bounding_box()
    assert box["height"] > 25 and inside["y"] < box["y"] and box["y"] + box["height"] < inside["y"] + inside["height"]


@pytest.mark.both_renderers
@pytest.mark.parametrize("palette", ["dark", "light"])
def test_text_stands_out(sheet, palette):
    sheet.palette(palette)
    texts, _ = sheet.contrasts()
    assert len(texts) > 3 and min(texts.values()) >= 4.5, texts
    sheet.palette("dark")


def test_the_keyboard_alone_reaches_a_cell_and_what_is_large(sheet, page):
    page.evaluate("() => document.activeElement?.blur?.()")
    for wanted in (NAMES[0], "Back"):
        for _ in range(250):
            page.keyboard.press("Tab")
            if sheet.focused() == f"sheet {wanted}":
                break
        assert sheet.focused() == f"sheet {wanted}"
        page.keyboard.press("Enter")
        assert (slider(sheet) is None) == (wanted == "Back")


@pytest.mark.both_renderers
def test_a_page_at_200_percent_clips_nothing_and_cells_are_compared(sheet, page):
    with sheet.zoomed(2):
        sheet.look_at("ComparisonSheet", 0.5)
        assert sheet.overflowing("ComparisonSheet") == []
        cells(sheet)[3].focus()
        page.keyboard.press("Enter")
        assert value(sheet) == 50 and sheet.overflowing("ComparisonSheet") == []
        page.keyboard.press("Escape")


def test_nothing_moves_by_itself(sheet, page):
    for motion in ("reduce", "no-preference"):
        page.emulate_media(reduced_motion=motion)
        assert sheet.moving() == []


def height_of_labels(screen, name, template):
    """In pixels of the screen, at the zoom at which the template opens."""
    screen.look_at(name, workflow(template)["extra"]["ds"]["scale"])
    label = screen.widget(name).query_selector(".row > span")
    height = "label => parseFloat(getComputedStyle(label).fontSize) * label.getBoundingClientRect().height / label.offsetHeight"
    return round(label.evaluate(height), 3)


@pytest.mark.both_renderers
def test_labels_can_be_read_at_the_zoom_at_which_the_workflow_opens(sheet):
    assert height_of_labels(sheet, "ComparisonSheet", "circulation-sweep") >= 9  # ComfyUI's own text has 8


def grid(screen, **values):
    screen.load(small_graph(workflow("find-your-alpha"), steps=2, seed=1))
    screen.js("""Object.entries(values[0]).forEach(([name, value]) => {
        node("CirculationGrid").widgets.find((widget) => widget.name === name).value = value;
    })""", {"alpha": "3", "beta": "8", **values})  # fmt: skip
    screen.look_at("CirculationGrid")


def grid_cells(screen):
    return [cell.get_attribute("aria-label") for cell in screen.widget("CirculationGrid").query_selector_all(".cells button")]


def test_a_grid_shows_each_cell_when_it_is_there(screen):
    grid(screen, seed=next(seeds), seeds=2)
    screen.js("""(() => {
        window.noted = [];
        const element = widget("CirculationGrid");
        const cells = () => element.querySelectorAll(".cells button img").length;
        const note = () => window.noted.push([cells(), element.querySelector(".line").textContent]);
        new MutationObserver(() => window.running && note()).observe(element, { childList: true, subtree: true });
    })()""")  # fmt: skip
    screen.queue()
    screen.finished()
    screen.wait(lambda: grid_cells(screen) == NAMES)
    noted = screen.js("window.noted")
    for count in (1, 2, 3, 4):
        assert any(found == count and f"2 settings, {count} of 4 images, " in line for found, line in noted), noted
    said = screen.wait(lambda: (line := screen.text("CirculationGrid", ".line")).startswith("2 settings, 4 images, ") and line)
    assert "blocks hit" in said
    texts, lines = screen.contrasts()
    assert len(texts) > 3 and min(texts.values()) >= 4.5 and min(lines.values()) >= 3, (texts, lines)
    assert screen.overflowing("CirculationGrid") == [] and screen.moving() == []
    assert height_of_labels(screen, "CirculationGrid", "find-your-alpha") >= 9
    screen.elsewhere(workflow("stability-readout"))
    screen.back()
    assert grid_cells(screen) == NAMES and screen.text("CirculationGrid", ".line") == said


def test_of_an_interrupted_grid_what_was_done_is_shown(screen):
    columns = 48  # more than it can do until it is interrupted
    grid(screen, seed=1000 * next(seeds), seeds=columns, steps=12)
    screen.queue()
    screen.wait(lambda: f"of {2 * columns} images" in screen.text("CirculationGrid", ".line"))
    screen.interrupt()
    found = grid_cells(screen)
    in_order = [f"{row}, column {column}" for row in (OFF, CHANGED) for column in range(1, columns + 1)]
    assert found == in_order[: len(found)] and len(found) < len(in_order)
    assert f"2 settings, {len(found)} of {2 * columns} images, " in screen.text("CirculationGrid", ".line")
    screen.reload()
    assert grid_cells(screen) == found
