"""The pictures of the help pages: screenshots of the real thing.

`UPDATE_PICTURES=1 python3 -m tests tests/browser/test_pictures.py` writes those that are in the repository anew. Without it new ones
are compared with them.
"""

import io
import os
from pathlib import Path

import numpy
import pytest
from PIL import Image
from support import front_ends
from support.screen import EMPTY, Screen, renumbered, small_graph
from support.server import ROOT, front_end
from support.workflows import workflow

DOCS = ROOT / "js" / "docs"
# of each workflow: the nodes that are pictured after a run of it
AFTER_A_RUN = {
    "circulation-schedule": ["CirculationControl", "CirculationSchedule", "StabilityProbe", "StabilityReadout"],
    "baseline-vs-circulation": ["StabilityCompare"],
}
OTHERS = ["CirculationAdaptive", "CirculationSweep", "CirculationGrid", "SaveStability", "LoadStability", "ModelBlocks"]


pytestmark = pytest.mark.parametrize("version", [front_ends.NEWEST], indirect=True)


@pytest.fixture(scope="module")
def screen(server):
    options = dict(Comfy_VueNodes_Enabled=True, Comfy_Minimap_Visible=False, Comfy_NodeBadge_NodeSourceBadgeMode="None")
    options |= dict(Comfy_Graph_CanvasInfo=False, Comfy_Graph_CanvasMenu=False)
    with front_end(server, scale=1.5, **options) as page:
        page.set_viewport_size(dict(width=1440, height=1500))
        page.evaluate("app.extensionManager.command.execute('Workspace.ToggleFocusMode')")
        yield Screen(page)


def kept(png: bytes, path: Path, width: int):
    """Writes a picture to the repository, or compares it with the one that is there: in size, and in what is seen from far away.

    Fonts and front ends may differ. A node with one more widget is higher, and an empty chart is seen.
    """
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((width, width), Image.Resampling.LANCZOS)
    assert numpy.asarray(picture).std() > 8, "an empty picture"
    if os.environ.get("UPDATE_PICTURES"):
        picture.save(path, optimize=True)
        return
    again = f"make {path.name} anew with UPDATE_PICTURES=1"
    with Image.open(path) as old:
        assert picture.size == pytest.approx(old.size, rel=0.05), again
        far, old_far = (numpy.asarray(each.convert("RGB").resize((64, 64), Image.Resampling.BOX), float) for each in (picture, old))
    assert numpy.abs(far - old_far).mean() < 6, again


def node(screen, name):
    screen.look_at(name, min(1, 1200 / screen.js("node(values[0]).size[1]", name)))
    screen.settle(9)
    id = screen.js("node(values[0]).id", name)
    box = screen.page.locator(f'[data-node-id="{id}"]').bounding_box()
    return screen.page.screenshot(clip=dict(x=box["x"] - 12, y=box["y"] - 12, width=box["width"] + 24, height=box["height"] + 24))


@pytest.mark.parametrize("name", AFTER_A_RUN)
def test_nodes_after_a_run(screen, name):
    screen.load(renumbered(small_graph(workflow(name), steps=10, seed=7, size=128), 1000 * [*AFTER_A_RUN].index(name)))
    screen.queue()
    screen.finished()
    for shown in AFTER_A_RUN[name]:
        kept(node(screen, shown), DOCS / f"{shown}.png", 900)


@pytest.mark.parametrize("name", OTHERS)
def test_a_node(screen, name):
    screen.load(EMPTY)
    screen.js("(() => { const made = LiteGraph.createNode(values[0]); made.pos = [0, 0]; app.graph.add(made); })()", name)
    screen.settle(9)
    kept(node(screen, name), DOCS / f"{name}.png", 900)
