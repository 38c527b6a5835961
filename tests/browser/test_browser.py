"""What people look at: our widgets in the real front ends, in both of their ways to draw nodes, on the real server."""

import base64
import csv
import io
import itertools
import json
import re
import statistics

import numpy
import pytest
from PIL import Image
from support.screen import EMPTY, Screen, small_graph
from support import workflows
from support.server import ROOT, open_workflow, prompt_of
from support.workflows import workflow

RUN_HERE = ["circulation-basic", "circulation-schedule", "stability-readout", "baseline-vs-circulation"]  # the others' models are too large
GOLDEN = ROOT / "tests" / "golden"
SAVED = sorted(GOLDEN.glob("saved-by-*.json"))  # all nodes with other values than the defaults, from front ends 1.32.9 and 1.58.1
MEASURES = ["energy", "instability", "alignment", "eta", "skew ratio"]
BY_BLOCK = "instability by block"
STEPS = 20  # of the run that is watched

seeds = itertools.count()


def scheduled(seed=None, steps=4, size=64):
    """The workflow with all that we draw in it, small, and with the table of the record as text."""
    graph = small_graph(workflow("circulation-schedule"), steps, next(seeds) if seed is None else seed, size)
    readout = next(node for node in graph["nodes"] if node["type"] == "StabilityReadout")
    readout["outputs"][3]["links"] = [99]
    place = dict(pos=[2040, 600], size=[400, 200], order=12)
    table = dict(id=99, type="PreviewAny", **place, flags={}, mode=0, outputs=[], properties={}, widgets_values=[])
    graph["nodes"].append({**table, "inputs": [{"name": "source", "type": "*", "link": 99}]})
    graph["links"].append([99, readout["id"], 3, 99, 0, "STRING"])
    return graph


def only(graph, *types):
    """The graph with no other nodes than these, and without links."""
    kept = [node for node in graph["nodes"] if node["type"] in types]
    for node in kept:
        for slot in node["inputs"]:
            slot["link"] = None
        for slot in node["outputs"]:
            slot["links"] = None
    return {**graph, "nodes": kept, "links": []}


# --- workflows


@pytest.mark.both_renderers
@pytest.mark.parametrize("path", workflows.ALL)
def test_a_workflow_loads_with_the_values_it_was_saved_with(server, page, path):
    saved, types = workflow(path.stem), server.object_info()
    prompt = open_workflow(page, saved, without_files=path.stem not in RUN_HERE)
    for node in saved["nodes"]:
        if types.get(node["type"], {}).get("category") != "circulation":
            continue
        info = types[node["type"]]["input"]
        sockets = {item["name"] for item in node.get("inputs", []) if "widget" not in item}
        names = [name for name in {**info.get("required", {}), **info.get("optional", {})} if name not in sockets]
        inputs = prompt[str(node["id"])]["inputs"]
        saved = dict(zip(names, node.get("widgets_values") or []))
        # the value of a widget that has got a link is kept, and not used
        assert {name: inputs[name] for name in saved if not isinstance(inputs[name], list)} == {
            name: value for name, value in saved.items() if not isinstance(inputs[name], list)
        }


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_what_this_version_saved_comes_back_whole(screen, path):
    """Into the same places of the file, and into the same prompt."""
    saved, prompt = json.loads(path.read_text()), json.loads((GOLDEN / "saved-prompt.json").read_text())
    for _ in range(2):
        screen.load(saved)
        assert {id: node["inputs"] for id, node in screen.prompt().items()} == prompt
        again = screen.saved()
        now, before = ([node.get("widgets_values") or [] for node in graph["nodes"]] for graph in (again, saved))
        assert now == before
        saved = again


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_what_was_saved_before_there_was_a_method_has_the_papers(screen, path):
    saved = json.loads(path.read_text())
    older = [node for node in saved["nodes"] if node["type"] in ("CirculationControl", "CirculationAdaptive")]
    for node in older:
        node["inputs"] = [input for input in node["inputs"] if input["name"] != "method"]
        node["widgets_values"].pop()
        node.get("widgets_values_named", {}).pop("method", None)
    screen.load(saved)
    prompt = json.loads((GOLDEN / "saved-prompt.json").read_text())
    for node in older:
        prompt[str(node["id"])]["method"] = "paper"
    assert {id: node["inputs"] for id, node in screen.prompt().items()} == prompt


def test_help_pages_and_translations_are_served(server, page):
    """The help page of a node, its picture, and one language."""
    for id, title in (("CirculationControl", "Circulation"), ("StabilityProbe", "Stability Probe")):
        docs = "/extensions/attention-circulation/docs"
        assert server.get_bytes(f"{docs}/{id}.md").decode().startswith(f"# {title}\n")
        assert server.get_bytes(f"{docs}/{id}/ja.md").startswith(b"# ")
        assert server.get_bytes(f"{docs}/{id}.png").startswith(b"\x89PNG")
    assert server.get("/i18n")["ja"]["nodeDefs"]["StabilityProbe"]["inputs"]["label"]["name"] == "ラベル"
    sheet = "/extensions/attention-circulation/circulation.css"
    assert page.evaluate("sheet => [...document.styleSheets].filter(({ href }) => href?.endsWith(sheet)).length", sheet) == 1
    names = page.evaluate("app.extensions.map(({ name }) => name).filter(name => /circulation/i.test(name))")
    assert names == ["circulation.panels"]


# --- a run


@pytest.fixture(scope="module")
def run(page):
    """A run that was watched: what could be seen before, during and after it, and what the nodes put out."""
    screen = Screen(page)
    screen.load(scheduled(steps=STEPS, size=128))
    before = screen.picture("StabilityProbe")
    screen.watch("StabilityProbe")
    screen.queue()
    outputs = screen.finished()
    drawn = screen.wait(lambda: STEPS in (drawn := screen.watched()) and drawn)
    return dict(before=before, drawn=drawn, outputs=outputs, chart=screen.csv("StabilityProbe"), readout=screen.csv("StabilityReadout"))


def means(table):
    """Of a record's table what charts show: {(step, stage): [mean of each measure]}."""
    rows = list(csv.DictReader(io.StringIO(table)))
    groups = {}
    for row in rows:
        groups.setdefault((int(float(row["step"])), row["block"].partition(".")[0]), []).append([float(row[name]) for name in MEASURES])
    return {key: [statistics.fmean(values) for values in zip(*rows)] for key, rows in groups.items()}


def pixels(address):
    """Of a picture whose address holds it."""
    return numpy.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"), int)


def shown(text):
    rows = list(csv.DictReader(io.StringIO(text)))
    return {(int(row["step"]), row["stage"]): [float(value) for value in list(row.values())[3:]] for row in rows}


def test_the_chart_is_drawn_while_the_sampler_runs(run):
    steps = list(run["drawn"])
    assert steps == sorted(steps) and steps[-1] == STEPS
    meanwhile = [picture for picture, running in run["drawn"].values() if running]  # a page that is slow draws some of them together
    assert len(meanwhile) > 1 and len({run["before"], *meanwhile}) == len(meanwhile) + 1


def test_the_charts_show_what_the_record_holds(run):
    record = means(run["outputs"]["99"]["text"][0])
    assert {step for step, _ in record} == set(range(1, STEPS + 1))
    for name in ("chart", "readout"):
        chart = shown(run[name])
        assert chart.keys() == record.keys()
        for key, values in chart.items():
            assert values == pytest.approx(record[key], rel=1e-4, abs=1e-5)


def test_the_circulation_node_says_what_came_of_it(run, screen):
    line = "6 of 6 blocks hit, steps 1 to 15 of 20, positive and negative. Attention changed by "
    assert screen.text("CirculationControl").startswith(line)


def test_a_run_from_the_cache_leaves_the_charts(run, screen):
    screen.queue()
    screen.finished()
    assert [screen.csv(name) for name in ("StabilityProbe", "StabilityReadout")] == [run["chart"], run["readout"]]


def test_pointer_and_keys_read_values(run, screen, page):
    screen.look_at("StabilityProbe")
    plot = screen.plot("StabilityProbe")

    def shows(step):
        return lambda: screen.text("StabilityProbe", ".legend").startswith(f"step {step} of {STEPS}")

    screen.point_at(plot, 48, 30, shows(1))
    screen.point_at(plot, plot.bounding_box()["width"] - 12, 30, shows(STEPS))
    screen.point_at(plot, 48, 30, shows(1))
    first = screen.text("StabilityProbe", ".legend")
    page.mouse.move(5, 5)
    plot.focus()
    page.keyboard.press("Home")
    assert screen.text("StabilityProbe", ".legend") == first
    page.keyboard.press("ArrowRight")
    assert screen.text("StabilityProbe", ".legend").startswith(f"step 2 of {STEPS}")
    plot.evaluate("plot => plot.blur()")


def test_another_measure_can_be_chosen_and_is_kept(run, screen):
    screen.look_at("StabilityProbe")
    before = screen.plot("StabilityProbe").screenshot()
    screen.widget("StabilityProbe").query_selector("select").select_option("instability")
    screen.wait(lambda: screen.plot("StabilityProbe").screenshot() != before)
    assert not screen.widget("StabilityProbe").query_selector("select[aria-label^='Node']").is_visible()  # that is for the heat map
    screen.load(screen.saved())
    assert screen.widget("StabilityProbe").query_selector("select").input_value() == "instability"


def by_block(table):
    """Of a record's table: {(step, block): mean instability}."""
    groups = {}
    for row in csv.DictReader(io.StringIO(table)):
        groups.setdefault((int(float(row["step"])), row["block"]), []).append(float(row["instability"]))
    return {place: statistics.fmean(values) for place, values in groups.items()}


@pytest.fixture
def heat(run, screen):
    """The heat map of the probe's chart, with a Circulation node in the graph."""
    screen.load(scheduled())
    screen.look_at("StabilityProbe")
    choose(screen, BY_BLOCK, "StabilityProbe")
    screen.wait(lambda: screen.plot("StabilityProbe").query_selector("image"))
    yield screen
    screen.load(scheduled())


def on_row(screen, row, step=1, rows=6):
    """The place on the screen of a block of the heat map at a step."""
    map = screen.plot("StabilityProbe").query_selector("image").bounding_box()
    return map["x"] + map["width"] * (step - 0.5) / STEPS, map["y"] + map["height"] * (row + 0.5) / rows


def test_the_heat_map_shows_each_block_at_each_step(run, heat, page):
    record = by_block(run["outputs"]["99"]["text"][0])
    table = list(csv.DictReader(io.StringIO(heat.csv("StabilityProbe"))))
    assert {(int(row["step"]), row["block"]): float(row["instability"]) for row in table} == pytest.approx(record, rel=6e-3, abs=1e-6)
    picture = pixels(heat.plot("StabilityProbe").query_selector("image").get_attribute("href"))
    blocks = list(dict.fromkeys(row["block"] for row in table))
    assert len(picture) == len(blocks) == 6
    shown = {place: picture[blocks.index(place[1]), int((place[0] - 0.5) / STEPS * picture.shape[1])] for place in record}
    strongest, faintest = (extreme(record, key=record.get) for extreme in (max, min))
    far = {place: abs(shown[place] - shown[faintest]).sum() for place in record}
    assert far[strongest] == max(far.values()) > 200
    assert statistics.correlation(list(record.values()), [far[place] for place in record]) > 0.98
    page.mouse.move(*on_row(heat, 2, step=3))
    heat.wait(lambda: f"step 3 of {STEPS} · {blocks[2]} " in heat.text("StabilityProbe", ".legend"))
    assert heat.overflowing("StabilityProbe") == []
    with page.expect_download() as download:
        heat.menu("StabilityProbe", "Save chart as PNG")
    saved = numpy.asarray(Image.open(download.value.path()).convert("RGB"), int)
    assert saved.shape == (600, 1200, 3) and (abs(saved - shown[strongest]).sum(-1) < 9).any()  # the map is in it


def test_a_click_on_a_row_puts_its_block_into_a_circulation_node(heat, page):
    button = heat.widget("StabilityProbe").query_selector("button")
    assert button.is_disabled() and heat.text("StabilityProbe", ".legend") == "Pick blocks below."
    where = "[Object.fromEntries(app.graph.nodes.map(({ id, pos }) => [id, [...pos]])), ...app.canvas.ds.offset]"
    before = page.evaluate(where)
    for row in (0, 1):
        page.mouse.click(*on_row(heat, row))
    assert heat.text("StabilityProbe", ".legend").startswith("input · ")  # both of its blocks
    page.mouse.click(*on_row(heat, 0))
    assert len(heat.plot("StabilityProbe").query_selector_all(".picked")) == 1
    button.click()
    assert heat.value("CirculationControl", "blocks") == "input.3"
    assert page.evaluate(where) == before
    heat.keys("Control+z", until=lambda: heat.value("CirculationControl", "blocks") == "all")


def test_keys_pick_rows_too(heat, page):
    heat.plot("StabilityProbe").focus()
    for key in ["ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", " ", "ArrowDown", "Enter", "ArrowLeft"]:
        page.keyboard.press(key)
    assert f"step {STEPS - 1} of {STEPS} · output.0.0 " in heat.text("StabilityProbe", ".legend")
    page.keyboard.press("Shift+Tab")
    assert heat.focused() == "chart Put into blocks"
    page.keyboard.press("Enter")
    assert heat.value("CirculationControl", "blocks") == "input.3, output.0"


def test_the_last_run_lies_behind_the_grid_on_its_axes(run, screen):
    screen.load(scheduled())
    record = by_block(run["outputs"]["99"]["text"][0])
    blocks = list(dict.fromkeys(block for _, block in record))
    screen.look_at("CirculationSchedule")
    plot = screen.plot("CirculationSchedule")
    image = plot.query_selector("image.behind")
    area, cells = image.bounding_box(), [rect.bounding_box() for rect in plot.query_selector_all("rect[stroke]")][:-1]
    assert [area["x"], area["y"]] == pytest.approx([cells[0]["x"], cells[0]["y"]], abs=1.5)
    assert [area["x"] + area["width"], area["y"] + area["height"]] == pytest.approx(
        [cells[-1]["x"] + cells[-1]["width"], cells[-1]["y"] + cells[-1]["height"]], abs=2.5
    )
    picture = pixels(image.get_attribute("href"))
    last = picture.shape[1] - 1
    places = {step: int((step - 1) / (STEPS - 1) * last) for step, _ in record}  # the scheduler is even in time
    colours = {(step, block): picture[blocks.index(block), places[step]] for step, block in record}
    faintest = colours[min(record, key=record.get)]
    assert statistics.correlation(list(record.values()), [float(abs(colour - faintest).sum()) for colour in colours.values()]) > 0.98
    painted = screen.cells()
    switch = screen.widget("CirculationSchedule").query_selector("[role=switch]")
    for expected in (False, True):
        switch.click()
        screen.wait(lambda expected=expected: bool(screen.plot("CirculationSchedule").query_selector("image.behind")) == expected)
        assert switch.get_attribute("aria-checked") == str(expected).lower() and screen.cells() == painted
    switch.click()
    screen.load(screen.saved())
    assert screen.plot("CirculationSchedule").query_selector("image.behind") is None  # kept in the workflow


def test_a_chart_is_saved_as_png_and_csv(run, screen, page):
    with page.expect_download() as download:
        screen.menu("StabilityReadout", "Save chart as PNG")
    data = download.value.path().read_bytes()
    assert data.startswith(b"\x89PNG") and (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (1200, 600)
    header, first, *_ = screen.csv("StabilityReadout").splitlines()
    assert header == "step,sigma,stage,energy,instability,alignment,eta,skew ratio"
    assert re.match(r"1,[\d.]+,input,-?[\d.]+", first)


@pytest.mark.both_renderers
def test_charts_outlive_the_other_renderer_and_other_workflows(run, screen):
    for name in ("StabilityReadout", "StabilityProbe"):  # what was never on the screen was not drawn
        screen.look_at(name)
    shown = screen.shown()
    assert all(shown)
    for _ in range(2):
        screen.toggle_renderer()
        screen.look_at("StabilityProbe")
        assert screen.shown() == shown and screen.plot("StabilityProbe").bounding_box()["height"] > 50
    screen.elsewhere(workflow("stability-readout"))
    assert not screen.lines("StabilityProbe")
    screen.back()
    assert screen.shown() == shown


def test_a_run_goes_on_in_its_own_workflow_and_after_a_reload(run, screen):
    screen.load(scheduled(steps=4000, size=128))  # more than it can do until it is interrupted
    _, *of_the_end = screen.shown()
    screen.queue()
    screen.until("StabilityProbe", lambda step: step > 1)
    screen.elsewhere({**scheduled(), "id": "c0ffee00-0000-4000-8000-000000000000"})  # the same nodes under the same ids
    assert not screen.lines("StabilityProbe")
    screen.back()
    screen.until("StabilityProbe", lambda step: step > 1)
    seen = screen.step("StabilityProbe")
    screen.reload()
    _, *now = screen.shown()
    assert now[0] and now[1] == of_the_end[1]  # of the run before, whose chart may be drawn only after a reload
    assert screen.step("StabilityProbe") >= seen
    screen.until("StabilityProbe", lambda step: step > seen)
    screen.interrupt()
    assert screen.text("CirculationControl").startswith("Stopped early.")


def test_a_chart_goes_into_a_subgraph_and_follows_its_run_there(run, screen, page):
    screen.load(scheduled())
    probe, _, status = screen.shown()
    types = ["KSampler", "StabilityProbe", "CirculationControl"]
    page.evaluate("types => { app.graph.convertToSubgraph(new Set(app.graph.nodes.filter(n => types.includes(n.type)))); }", types)
    for again in (False, True):
        if again:
            screen.load(screen.saved())
        screen.enter()
        assert (screen.lines("StabilityProbe"), screen.text("CirculationControl")) == (probe, status)
        screen.leave()
    screen.queue()
    outputs = screen.finished()
    screen.enter()
    screen.look_at("StabilityProbe")
    assert screen.plot("StabilityProbe").bounding_box()["height"] > 50
    assert shown(screen.csv("StabilityProbe")) == shown(screen.csv("StabilityReadout", root=True))
    assert shown(screen.csv("StabilityProbe")).keys() == means(outputs["99"]["text"][0]).keys()
    assert "blocks hit" in screen.text("CirculationControl")
    screen.leave()


def test_the_same_prompt_without_a_browser_gives_the_same_image(server, screen):
    screen.load(scheduled(seed=1000))
    prompt = prompt_of(screen.page)
    screen.queue()
    there = screen.finished()
    (save,) = (id for id, node in prompt.items() if node["class_type"] == "SaveImage")
    prompt[save]["inputs"]["filename_prefix"] = "again"
    prompt["sampled again"] = prompt.pop(next(id for id, node in prompt.items() if node["class_type"] == "KSampler"))
    text = json.dumps(prompt)
    sampler = next(id for id, node in screen.prompt().items() if node["class_type"] == "KSampler")
    prompt = json.loads(text.replace(f'["{sampler}", 0]', '["sampled again", 0]'))  # ComfyUI would not sample the same again
    here = server.run(prompt)
    assert server.image(there[save]["images"][0]) == server.image(here[save]["images"][0])


# --- the painter

ONES = [[1] * 12 for _ in range(8)]


@pytest.fixture(scope="module")
def schedule_alone(page):
    """A workflow with a new Circulation Schedule and nothing else."""
    screen = Screen(page)
    screen.load(EMPTY)
    page.evaluate("() => { const node = LiteGraph.createNode('CirculationSchedule'); node.pos = [100, 100]; app.graph.add(node); }")
    screen.settle()
    return screen.saved()


@pytest.fixture
def painter(screen, schedule_alone):
    """A new Circulation Schedule in the middle of an empty graph, as saved: older front ends lay new nodes out anew later, even by undo."""
    screen.load(schedule_alone)
    screen.look_at("CirculationSchedule")
    screen.snapshot()
    return screen


def grid(screen):
    return json.loads(screen.value("CirculationSchedule", "grid"))["grid"]


def painted(*places, value=0, on=ONES):
    rows = [list(row) for row in on]
    for row, column in places:
        rows[row][column] = value
    return rows


def test_the_mouse_paints_and_the_value_is_saved(painter, page):
    position = page.evaluate("[...app.graph.nodes[0].pos, ...app.canvas.ds.offset]")
    painter.brush("0")
    painter.drag((2, 3), (2, 6))
    stroke = painted((2, 3), (2, 4), (2, 5), (2, 6))
    assert grid(painter) == stroke
    painter.brush("1.5")
    painter.drag((5, 1), (7, 1))
    painter.drag((0, 9), (0, 10), modifier="Shift")
    stroke = painted((0, 9), (0, 10), on=painted((5, 1), (6, 1), (7, 1), value=1.5, on=stroke))
    assert grid(painter) == stroke
    assert page.evaluate("[...app.graph.nodes[0].pos, ...app.canvas.ds.offset]") == position
    saved = painter.saved()
    painter.load(workflow("circulation-basic"))
    painter.load(saved)
    assert grid(painter) == stroke
    assert json.loads(next(iter(painter.prompt().values()))["inputs"]["grid"])["grid"] == stroke
    painter.look_at("CirculationSchedule")
    assert painter.cells() == [[str(value) for value in row] for row in stroke]


def test_bars_and_presets_paint_rows_columns_and_all(painter):
    painter.brush("2")
    painter.drag((3, -1), (3, -1))
    assert grid(painter) == painted(*((3, column) for column in range(12)), value=2)
    painter.brush("0.5")
    painter.drag((-1, 4), (-1, 4))
    assert [row[4] for row in grid(painter)] == [0.5] * 8
    painter.drag((-1, -1), (-1, -1))
    assert grid(painter) == [[0.5] * 12] * 8
    for preset, expected in {
        "early half": [[1] * 6 + [0] * 6] * 8,
        "late half": [[0] * 6 + [1] * 6] * 8,
        "middle depth": [[0] * 12] * 2 + [[1] * 12] * 4 + [[0] * 12] * 2,
        "everywhere 0": [[0] * 12] * 8,
        "everywhere 1": ONES,
    }.items():
        painter.widget("CirculationSchedule").query_selector("select").select_option(preset)
        assert grid(painter) == expected
    painter.widget("CirculationSchedule").query_selector("select").select_option("ramp down")
    (ramp,) = {tuple(row) for row in grid(painter)}
    assert list(ramp) == sorted(ramp, reverse=True) and 1.9 < ramp[0] <= 2 and 0 <= ramp[-1] < 0.1


def test_another_size_keeps_the_picture(painter):
    painter.brush("0")
    painter.drag((0, 0), (3, 0))
    rows, columns = (painter.widget("CirculationSchedule").query_selector(f"input[max='{most}']") for most in (32, 64))
    rows.fill("4")
    rows.dispatch_event("change")
    columns.fill("99")
    columns.dispatch_event("change")
    assert [len(grid(painter)), len(grid(painter)[0])] == [4, 64]
    assert [row[:6] for row in grid(painter)] == [[0, 0, 0, 0, 0, 1]] * 2 + [[1] * 6] * 2


def test_the_keyboard_paints(painter, page):
    painter.plot("CirculationSchedule").focus()
    for key in ["ArrowDown", "ArrowRight", "ArrowRight", "4", " ", "ArrowDown", "Delete", "ArrowDown", "1", "r", "ArrowRight", "2", "c"]:
        page.keyboard.press(key)
    expected = painted((1, 2), value=2)
    expected = painted((2, 2), value=0, on=expected)
    expected = painted(*((3, column) for column in range(12)), value=0.5, on=expected)
    expected = painted(*((row, 3) for row in range(8)), value=1, on=expected)
    assert grid(painter) == expected
    assert "depth 38–50 %, sampling 25–33 %: 1" in painter.text("CirculationSchedule", ".note")
    assert len(painter.saved()["nodes"]) == 1  # Delete was the painter's


def choose(screen, entry, name="CirculationSchedule"):
    screen.widget(name).query_selector("select").select_option(entry)


def test_a_brush_between_the_buttons(painter, page):
    field = painter.widget("CirculationSchedule").query_selector("input[step='0.25']")
    field.fill("1.25")
    field.press("Enter")
    painter.drag((0, 0), (0, 1))
    painter.plot("CirculationSchedule").focus()
    for key in ["ArrowDown", "-", "-", " "]:
        page.keyboard.press(key)
    assert [row[:2] for row in grid(painter)[:2]] == [[1.25, 1.25], [1, 0.75]]
    field.fill("7")
    field.press("Enter")
    assert field.input_value() == "2"


def test_a_gradient_is_drawn_between_two_cells_and_along_a_bar(painter):
    painter.brush("0")
    painter.drag((2, 1), (2, 5), modifier="Control")
    assert grid(painter) == [[1] * 12] * 2 + [[1, 1, 0.75, 0.5, 0.25, 0, 1, 1, 1, 1, 1, 1]] + [[1] * 12] * 5
    choose(painter, "everywhere 1")
    painter.brush("2")
    painter.drag((-1, 8), (-1, 4), modifier="Control")
    assert grid(painter) == [[1, 1, 1, 1, 2, 1.75, 1.5, 1.25, 1, 1, 1, 1]] * 8
    painter.keys("Control+z", until=lambda: grid(painter) == ONES)  # one stroke is one step


def test_a_grid_is_mirrored_and_inverted(painter):
    first = [[row + 1 if column == 0 else 0 for column in range(12)] for row in range(2)]
    painter.js("node('CirculationSchedule').widgets[0].value = JSON.stringify({ grid: values[0] })", first)
    painter.load(painter.saved())
    choose(painter, "mirror in time")
    assert grid(painter) == [row[::-1] for row in first]
    choose(painter, "mirror in depth")
    assert grid(painter) == [row[::-1] for row in first[::-1]]
    choose(painter, "invert")
    assert grid(painter) == [[2 - cell for cell in row[::-1]] for row in first[::-1]]


def test_own_presets_stay_in_the_browser(painter, page):
    def own():
        options = painter.widget("CirculationSchedule").query_selector_all("option")
        return [option.get_attribute("value") for option in options if ":" in option.get_attribute("value")]

    painter.brush("0")
    painter.drag((1, 1), (1, 5))
    stroke = grid(painter)
    choose(painter, "keep")
    name = painter.widget("CirculationSchedule").query_selector("input.name")
    name.fill("mine: <b>")
    name.press("Enter")
    assert own() == ["own:mine: <b>", "drop:mine: <b>"] and not name.is_visible()
    choose(painter, "everywhere 1")
    painter.reload()
    painter.look_at("CirculationSchedule")
    choose(painter, "own:mine: <b>")
    assert grid(painter) == stroke
    choose(painter, "drop:mine: <b>")
    assert own() == []


def test_the_depth_axis_says_which_end_is_which(painter):
    words = [text.text_content() for text in painter.widget("CirculationSchedule").query_selector_all("svg text[transform]")]
    assert words == ["first blocks", "last"]


def test_without_a_run_there_is_nothing_behind_the_grid(painter):
    assert painter.plot("CirculationSchedule").query_selector("image") is None
    assert not painter.widget("CirculationSchedule").query_selector("[role=switch]").is_visible()


@pytest.mark.parametrize("by", ["mouse", "preset", "keyboard"])
def test_comfyui_undoes_a_stroke_and_does_it_again(painter, page, by):
    if by == "mouse":
        painter.brush("0")
        painter.drag((1, 1), (1, 5))
    elif by == "preset":
        painter.widget("CirculationSchedule").query_selector("select").select_option("early half")
    else:
        painter.plot("CirculationSchedule").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Delete")
    stroke = grid(painter)
    assert stroke != ONES
    for keys, expected in (("Control+z", ONES), ("Control+y", stroke)):
        painter.keys(keys, until=lambda expected=expected: grid(painter) == expected)
        painter.look_at("CirculationSchedule")
        assert painter.cells() == [[str(value) for value in row] for row in expected]


def test_a_clone_and_a_subgraph_keep_the_grid(painter, page):
    painter.brush("0")
    painter.drag((1, 1), (1, 5))
    stroke = grid(painter)
    page.evaluate("() => { const copy = app.graph.nodes[0].clone(); app.graph.add(copy); copy.pos = [700, 100]; }")
    painter.settle()
    values = [json.loads(node["inputs"]["grid"])["grid"] for node in painter.prompt().values()]
    assert values == [stroke, stroke]
    page.evaluate("app.graph.remove(app.graph.nodes[1])")
    page.evaluate("() => { app.graph.convertToSubgraph(new Set(app.graph.nodes)); }")
    assert [json.loads(node["inputs"]["grid"])["grid"] for node in painter.prompt().values()] == [stroke]
    painter.enter()
    painter.look_at("CirculationSchedule")
    assert painter.cells()[1][:7] == ["1", "0", "0", "0", "0", "0", "1"]
    painter.leave()


def test_a_text_that_is_no_grid_is_left_alone_and_refused_at_the_node(painter, page):
    wrong = '{"grid": [[1, 2], [1, 3]]}'
    page.evaluate("text => { const node = app.graph.nodes[0]; node.widgets[0].value = text; }", wrong)
    painter.load(painter.saved())
    assert painter.value("CirculationSchedule", "grid") == wrong
    assert painter.text("CirculationSchedule", ".note").startswith("The text of this node is no grid")
    painter.widget("CirculationSchedule").query_selector("select").select_option("everywhere 1")
    assert grid(painter) == ONES


# --- how it looks


@pytest.mark.both_renderers
@pytest.mark.parametrize("palette", ["dark", "light"])
def test_text_and_lines_stand_out(run, screen, page, palette):
    screen.load(scheduled())  # what the run brought is there again
    screen.palette(palette)
    screen.look_at("CirculationSchedule", 0.5)
    texts, lines = screen.contrasts()
    assert len(texts) > 20 and min(texts.values()) >= 4.5, texts
    assert len(lines) > 8 and min(lines.values()) >= 3, lines
    painter = screen.plot("CirculationSchedule")
    behind = pixels(painter.query_selector("image.behind").get_attribute("href"))
    edges = {rect.get_attribute("stroke") for rect in painter.query_selector_all("rect[stroke]")[:-1]}
    assert min(contrast(rgb(edge), colour) for edge in edges for colour in numpy.unique(behind.reshape(-1, 3), axis=0)) >= 3
    halos = {(text.get_attribute("stroke"), text.get_attribute("fill")) for text in painter.query_selector_all("text[stroke]")}
    assert min(contrast(*map(rgb, pair)) for pair in halos) >= 4.5  # of the numbers, whatever is behind
    choose(screen, BY_BLOCK, "StabilityProbe")
    screen.wait(lambda: screen.plot("StabilityProbe").query_selector("image"))
    texts, lines = screen.contrasts()
    assert min(texts.values()) >= 4.5 and min(lines.values()) >= 3, (texts, lines)
    heat = pixels(screen.plot("StabilityProbe").query_selector("image").get_attribute("href")).reshape(-1, 3)
    panel = rgb(screen.js("getComputedStyle(widget('StabilityProbe')).backgroundColor"))
    assert max(contrast(panel, colour) for colour in numpy.unique(heat, axis=0)) >= 3
    choose(screen, "alignment", "StabilityProbe")
    screen.palette("dark")


def rgb(colour):
    """Of a colour as a browser writes it."""
    if colour.startswith("#"):
        digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
        return [int(digits[at : at + 2], 16) for at in (0, 2, 4)]
    return [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]


def contrast(*colours):
    """As WCAG 2.2 defines it."""
    linear = [[c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour] for colour in colours]
    low, high = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.both_renderers
@pytest.mark.parametrize("scale", [1, 2])
def test_nothing_is_clipped_in_narrow_and_wide_nodes(run, screen, scale):
    screen.load(scheduled())
    for name in ("CirculationSchedule", "StabilityProbe", "CirculationControl"):
        for width, height in ((210, 10), (420, 500), (900, 700)):
            screen.js("(n => n.setSize([values[1], Math.max(values[2], n.computeSize()[1])]))(node(values[0]))", name, width, height)
            screen.look_at(name, scale)
            assert screen.overflowing(name) == [], (name, width)


@pytest.mark.both_renderers
def test_a_page_at_200_percent_clips_nothing_and_is_painted(painter, page):
    with painter.zoomed(2):
        painter.brush("0")
        painter.drag((0, 3), (1, 3))
        assert grid(painter) == painted((0, 3), (1, 3))
        painter.load(scheduled())
        for name in ("CirculationSchedule", "StabilityProbe", "CirculationControl"):
            painter.look_at(name)
            assert painter.overflowing(name) == [], name


def test_the_keyboard_alone_reaches_all_and_uses_it(run, screen, page):
    screen.load(only(scheduled(), "CirculationSchedule", "StabilityProbe", "CirculationControl"))
    screen.look_at("CirculationSchedule", 0.5)
    page.evaluate("() => document.activeElement?.blur?.()")
    wanted = {"painter 0", "painter 2", "painter Brush", "painter Fill the grid", "painter columns", "painter last run", "painter svg"}
    wanted |= {"chart Measure", "chart svg", "status blocks"}
    reached = []
    for _ in range(250):
        page.keyboard.press("Tab")
        reached.append(screen.focused())
        if wanted <= set(reached):
            break
    assert wanted <= set(reached), reached
    screen.plot("StabilityProbe").focus()
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename.endswith(".png")
    page.keyboard.press("Home")
    assert screen.text("StabilityProbe", ".legend").startswith("step 1 of")
    assert screen.copied(lambda: page.keyboard.press("c")) == screen.csv("StabilityProbe")


def test_a_thousand_steps_leave_nothing_behind(run, screen, page):
    screen.load(scheduled())
    used = [screen.tell_steps(1000) for _ in range(3)]
    assert screen.text("StabilityProbe", ".legend").startswith("step 1000 of 1000")
    assert used[2]["nodes"] <= used[1]["nodes"] + 20
    assert used[2]["heap"] <= used[1]["heap"] * 1.02 + 500_000
    assert used[2]["stored"] < 400_000


def test_nothing_moves_by_itself(run, screen, page):
    """With nothing animated there is nothing to leave out for those who ask for reduced motion."""
    page.emulate_media(reduced_motion="reduce")
    screen.load(scheduled())
    assert screen.moving() == []
    page.emulate_media(reduced_motion="no-preference")
    assert screen.moving() == []


def test_the_help_page_opens_with_its_picture(screen, page):
    screen.load(scheduled())
    screen.look_at("StabilityProbe")
    screen.js("app.canvas.selectItems([node('StabilityProbe')])")
    page.get_by_test_id("info-button").evaluate("button => button.click()")  # in 1.32.9 the menu may lie over it
    page.wait_for_function("[...document.images].some(image => image.src.endsWith('/docs/StabilityProbe.png') && image.naturalWidth)")
    assert page.locator("h1", has_text="Stability Probe").is_visible()
    item = page.locator("li", has_text="every_n_steps").first
    assert item.is_visible() and item.evaluate("item => item.offsetWidth > 0.8 * item.parentElement.parentElement.clientWidth")
    assert page.locator("h2", has_text="Two recipes").count() == 1


def test_panels_speak_the_language_of_the_menus(screen, page):
    """Last in this file: it leaves its page in Japanese."""
    said = json.loads((ROOT / "locales" / "ja" / "main.json").read_text("utf-8"))["circulation"]
    page.evaluate("app.extensionManager.setting.set('Comfy.Locale', 'ja')")
    screen.fresh()
    screen.load(scheduled())
    shown = [
        screen.text("CirculationControl"), screen.text("CirculationSchedule", ".note"), screen.text("StabilityProbe", ".legend"),
        screen.text("CirculationSchedule", "option[value=invert]"),
    ]  # fmt: skip
    assert shown == [said[key] for key in ("notRun", "painterHelp", "nothingMeasured", "invert")]
    screen.queue()
    screen.finished()
    line = r"6 ブロック中 6 ブロックに作用、全 4 ステップの第 1～3、ポジティブとネガティブ。注意は [\d.]+ % 変わりました。"
    assert re.fullmatch(line, screen.text("CirculationControl"))
    spoken = "async phrase => (await import('/extensions/attention-circulation/words.js')).spoken(phrase)"
    for key, expected in (("textOnly", said["phrases"]["textOnly"]), ("ofAnotherVersion", "English"), ("oneStep", "English")):
        assert page.evaluate(spoken, {"key": key, "values": {}, "text": "English"}) == expected
    old = {"prompt": "of an older version", "text": "No block hit."}
    screen.js("""window.comfyAPI.api.api.dispatchEvent(new CustomEvent("circulation.status", {
        detail: { ...values[0], node: String(node("CirculationControl").id) },
    }))""", old)  # fmt: skip
    assert screen.text("CirculationControl") == old["text"]
