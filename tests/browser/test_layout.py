"""The demo's graphs after a run: no node lies on another, however high a front end makes them."""

import json

import pytest
from support.server import AVATARS

pytestmark = pytest.mark.every_front_end  # each draws nodes higher or lower

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


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_no_node_lies_on_another_after_a_run(screen, path):
    graph = json.loads(path.read_text("utf-8"))
    for node in graph["nodes"]:
        if node["type"] == "KSampler":
            node["widgets_values"][2] = 1  # step
    screen.fresh()
    screen.load(graph)
    screen.queue()
    screen.finished()
    screen.page.evaluate("() => { const { ds } = app.canvas; ds.scale = 0.25; ds.offset[0] = 400; ds.offset[1] = 600; }")
    screen.settle(20)  # images come a moment later
    assert screen.page.evaluate(OVERLAPS) == []
