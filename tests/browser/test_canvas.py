"""Nodes on the canvas, which each front end lays out in its own ways: over our elements the mouse does to the canvas what it does over
ComfyUI's own text box, and no node of the demo's graphs lies on another, however high they are drawn.
"""

import json

import pytest
from support.screen import EMPTY, Screen, renumbered
from support.server import AVATARS

pytestmark = pytest.mark.four_combinations

TEXT_BOX = "CLIPTextEncode"  # ComfyUI's own
OURS = ["StabilityProbe", "CirculationControl", "CirculationSchedule", "ComparisonSheet"]  # chart, status, painter, sheet
ON_CANVAS = {
    "wheel": [110, 0, 0], "wheel back": [100 / 1.1, 0, 0], "wheel with Control": [110, 0, 0],
    "drag": [100, 60, 40], "drag back": [100, -60, -40], "click": [100, 0, 0],
}  # fmt: skip
GRAPHS = sorted((AVATARS / "example_workflows").glob("*.json"))
OVERLAPS = """() => {
    const { scale, offset } = app.canvas.ds;
    const canvas = app.canvas.canvas.getBoundingClientRect();
    const boxes = app.graph.nodes.map(({ id, title, pos, size }) => {
        const drawn = document.querySelector(`[data-node-id="${id}"]`)?.getBoundingClientRect();
        if (!drawn) return [title, pos[0], pos[1] - LiteGraph.NODE_TITLE_HEIGHT, pos[0] + size[0], pos[1] + size[1]];
        const [left, right] = [drawn.left, drawn.right].map(x => (x - canvas.left) / scale - offset[0]);
        const [top, bottom] = [drawn.top, drawn.bottom].map(y => (y - canvas.top) / scale - offset[1]);
        return [title, left, top, right, bottom];
    });
    const over = ([, ...a], [, ...b]) => Math.min(a[2], b[2]) - Math.max(a[0], b[0]) > 1 && Math.min(a[3], b[3]) - Math.max(a[1], b[1]) > 1;
    return boxes.flatMap((one, i) => boxes.slice(i + 1).filter(other => over(one, other)).map(other => [one[0], other[0]]));
}"""
PLACE = """(() => {
    const { id, widgets } = node(values[0]);
    const box = () => document.querySelector(`[data-node-id="${id}"] textarea`) ?? widgets.find(widget => widget.element).element;
    const element = values[0] === "CLIPTextEncode" ? box() : widget(values[0]);
    const { left, top, width, height } = element.getBoundingClientRect();
    return [left + width / 2, top + height / 2];
})()"""


@pytest.fixture(scope="module")
def nodes(page):
    """Our nodes that have elements and ComfyUI's text box side by side, and a node in the clipboard."""
    screen = Screen(page)
    screen.load(EMPTY)
    screen.js("""values.forEach((type, i) => {
        const made = LiteGraph.createNode(type);
        made.pos = [i * 1000, 0];
        app.graph.add(made);
    })""", TEXT_BOX, *OURS)  # fmt: skip
    screen.load(screen.saved())
    screen.js("app.canvas.selectItems([node(values[0])])", TEXT_BOX)
    page.evaluate("() => document.activeElement?.blur?.()")
    page.keyboard.press("Control+c")
    return page.evaluate("app.graph.nodes.length")


def done_over(screen, name):
    """What the wheel, also with Control, and the middle button do over a node's element, and how many nodes there are after it.

    Of each gesture the scale of the canvas, in percent of the one before, and by how many pixels it moved under the pointer.
    """
    page, done = screen.page, {}
    screen.look_at(name)
    x, y = screen.js(PLACE, name)

    def canvas():
        screen.settle(4)
        scale, left, top = page.evaluate("[app.canvas.ds.scale, ...app.canvas.ds.offset]")
        return scale, left * scale, top * scale

    def note(gesture, act):
        nonlocal before
        act()
        after = canvas()
        under = [(after[i] - at) / after[0] * before[0] - (before[i] - at) for i, at in ((1, x), (2, y))]  # 0 where it zooms at the pointer
        moved = under if after[0] != before[0] else [after[i] - before[i] for i in (1, 2)]
        done[gesture] = [100 * after[0] / before[0], *moved]
        before = after

    def drag(start, end):
        page.mouse.move(x + start[0], y + start[1])
        page.mouse.down(button="middle")
        page.mouse.move(x + end[0], y + end[1], steps=4)
        page.mouse.up(button="middle")

    def pinch():
        page.keyboard.down("Control")
        page.mouse.wheel(0, -120)
        page.keyboard.up("Control")

    page.mouse.move(x, y)
    before = canvas()
    note("wheel", lambda: page.mouse.wheel(0, -120))
    note("wheel back", lambda: page.mouse.wheel(0, 120))
    note("wheel with Control", pinch)
    note("drag", lambda: drag((0, 0), (60, 40)))
    note("drag back", lambda: drag((60, 40), (0, 0)))
    note("click", lambda: drag((0, 0), (0, 0)))
    done["nodes"] = page.evaluate("app.graph.nodes.length")
    return done


@pytest.fixture(scope="module")
def text_box(nodes, page):
    done = done_over(Screen(page), TEXT_BOX)
    assert done["nodes"] == nodes
    if done["drag"] == [100, 0, 0]:  # in Nodes 2.0 of 1.32.9 it keeps all to itself
        return done | ON_CANVAS
    assert done == {gesture: pytest.approx(expected, abs=2) for gesture, expected in {**ON_CANVAS, "nodes": nodes}.items()}
    return done


@pytest.mark.parametrize("name", OURS)
def test_wheel_and_middle_button_do_what_they_do_over_comfyuis_text_box(text_box, screen, name):
    done = done_over(screen, name)
    for gesture, expected in text_box.items():
        assert done[gesture] == pytest.approx(expected, abs=2), gesture  # pixels
    assert done["nodes"] == text_box["nodes"]  # nothing was pasted


def test_a_right_click_in_a_chart_offers_its_two_commands(nodes, screen, page):
    screen.look_at("StabilityProbe")
    screen.tell_steps(3)
    page.mouse.click(*screen.js(PLACE, "StabilityProbe"), button="right")
    menu = page.locator(".litecontextmenu .litemenu-entry")
    menu.first.wait_for()
    assert menu.all_inner_texts() == ["Save chart as PNG", "Copy chart as CSV"]
    assert screen.copied(menu.last.click).startswith("step,sigma,stage,a,b,c,d,e\n1,1,input,0.1,")
    assert menu.count() == 0


@pytest.mark.parametrize("number, path", list(enumerate(GRAPHS)), ids=[path.stem for path in GRAPHS])
def test_no_node_of_the_demo_lies_on_another_after_a_run(screen, number, path):
    graph = json.loads(path.read_text("utf-8"))
    for node in graph["nodes"]:
        if node["type"] == "KSampler":
            node["widgets_values"][2] = 1  # step
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"][:2] = 64, 64  # squares too, and nodes are as high
    screen.load(renumbered(graph, 1000 * (number + 1)))
    screen.queue()
    screen.finished()
    screen.page.evaluate("() => { const { ds } = app.canvas; ds.scale = 0.25; ds.offset[0] = 400; ds.offset[1] = 600; }")
    screen.settle(20)  # images come a moment later
    assert screen.page.evaluate(OVERLAPS) == []
