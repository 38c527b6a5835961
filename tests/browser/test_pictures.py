"""The pictures of the help pages, of the README and of the template browser: screenshots of the real thing.

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
from support.screen import Screen, small_graph
from support.server import ROOT, front_end, started, workflow

DOCS, WORKFLOWS = ROOT / "js" / "docs", ROOT / "workflows"
# of each workflow: which nodes are on its thumbnail, and which are pictured alone
OF_WORKFLOWS = {
    "circulation-schedule": (
        ["CirculationSchedule", "CirculationControl", "StabilityProbe", "KSampler"],
        ["CirculationControl", "CirculationSchedule", "StabilityProbe", "StabilityReadout"],
    ),
    "baseline-vs-circulation": (["SaveImage", "StabilityReadout", "StabilityCompare"], ["StabilityCompare"]),
    "circulation-basic": (["CirculationControl", "KSampler", "SaveImage"], []),
    "stability-readout": (["StabilityProbe", "KSampler", "StabilityReadout"], []),
    "circulation-sweep": (["CirculationSweep", "KSampler", "ComparisonSheet"], []),
    "find-your-alpha": (["CirculationGrid", "SaveImage"], []),
}
# of those whose models are far too large to run here: which nodes are on the thumbnail, without the loaders, which miss their files
NOT_RUN = {
    **{f"circulation-{name}": ["CirculationControl", "KSampler", "VAEDecode"] for name in ("flux", "qwen-image", "sd3", "wan", "z-image")},
    **{f"circulation-sweep-{family}": ["CirculationSweep", "KSampler", "ComparisonSheet"] for family in ("flux", "z-image")},
    **{f"find-your-alpha-{family}": ["CirculationGrid", "SaveImage"] for family in ("flux", "z-image")},
}
OTHERS = ["CirculationAdaptive", "CirculationSweep", "CirculationGrid", "SaveStability", "LoadStability", "ModelBlocks"]


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    root = front_ends.root(front_ends.NEWEST)
    with started(base, "--front-end-root", str(root), kind="sd15") as server:
        options = dict(Comfy_VueNodes_Enabled=True, Comfy_Minimap_Visible=False, Comfy_NodeBadge_NodeSourceBadgeMode="None")
        options |= dict(Comfy_Graph_CanvasInfo=False, Comfy_Graph_CanvasMenu=False)
        with front_end(server, scale=1.5, **options) as page:
            page.set_viewport_size(dict(width=1440, height=1500))
            yield Screen(page)


def kept(png: bytes, path: Path, width: int):
    """Writes a picture to the repository, or compares it with the one that is there: in size, and in what is seen from far away.

    Fonts and front ends may differ. A node with one more widget is higher, and an empty chart is seen.
    """
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((width, width), Image.Resampling.LANCZOS)
    assert numpy.asarray(picture).std() > 8, "an empty picture"
    if os.environ.get("UPDATE_PICTURES"):
        picture.save(path, **(dict(quality=82) if path.suffix == ".jpg" else dict(optimize=True)))
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


@pytest.mark.parametrize("name", OF_WORKFLOWS)
def test_a_workflow_after_a_run_and_its_nodes(screen, name):
    thumbnail, alone = OF_WORKFLOWS[name]
    screen.fresh()
    screen.page.evaluate("app.extensionManager.command.execute('Workspace.ToggleFocusMode')")
    screen.load(small_graph(workflow(name), steps=10, seed=7, size=128))
    screen.queue()
    screen.finished()
    for shown in alone:
        kept(node(screen, shown), DOCS / f"{shown}.png", 900)
    kept(screen.page.screenshot(clip=screen.frame(thumbnail)), WORKFLOWS / f"{name}.jpg", 1000)


@pytest.mark.parametrize("name", NOT_RUN)
def test_a_workflow_as_it_is_loaded(screen, name):
    screen.fresh()
    screen.page.evaluate("app.extensionManager.command.execute('Workspace.ToggleFocusMode')")
    screen.load(workflow(name))
    kept(screen.page.screenshot(clip=screen.frame(NOT_RUN[name])), WORKFLOWS / f"{name}.jpg", 1000)


@pytest.mark.parametrize("name", OTHERS)
def test_a_node(screen, name):
    screen.load({"nodes": [], "links": [], "version": 0.4, "last_node_id": 0, "last_link_id": 0, "groups": [], "config": {}, "extra": {}})
    screen.js("(() => { const made = LiteGraph.createNode(values[0]); made.pos = [0, 0]; app.graph.add(made); })()", name)
    screen.settle(9)
    kept(node(screen, name), DOCS / f"{name}.png", 900)
