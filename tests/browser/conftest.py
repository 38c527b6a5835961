"""A server for each front end, and in each front end both ways to draw nodes.

Of these six combinations a test that asks for a `page` runs in one, the oldest front end's canvas or the newest's Nodes 2.0: its name
decides which, so that each panel is tried in both. Marked `both_renderers` it runs in these two, since it is about how things look, and
marked `four_combinations` in both renderers of these front ends, since they differ in what it is about. With `--every-front-end` all tests
run in all six.
"""

import itertools
import zlib
from pathlib import Path

import pytest
from support import front_ends
from support.screen import Screen
from support.server import AVATARS, front_end, started

CANVAS, NODES_2 = False, True  # whether Nodes 2.0 draws the nodes
USUAL = (front_ends.OLDEST, CANVAS), (front_ends.NEWEST, NODES_2)
MARKED = {"both_renderers": USUAL, "four_combinations": tuple(itertools.product((front_ends.OLDEST, front_ends.NEWEST), (CANVAS, NODES_2)))}


def pytest_collection_modifyitems(config, items):
    named = any("[" in argument for argument in config.args)  # one combination of a test
    if not named and not config.getoption("every_front_end"):
        config.hook.pytest_deselected(items=[item for item in items if not is_usual(item)])
        items[:] = filter(is_usual, items)


def is_usual(item):
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if not {"version", "page"} <= params.keys():
        return True
    by_name = USUAL[bool(zlib.crc32(item.originalname.encode()) & 4)]  # of all bits the one that divides the time most evenly
    combinations = next((MARKED[mark.name] for mark in item.iter_markers() if mark.name in MARKED), (by_name,))
    return (params["version"], params["page"]) in combinations


@pytest.fixture(scope="session", params=front_ends.VERSIONS)
def version(request):
    return request.param


@pytest.fixture(scope="session")
def server(version, tmp_path_factory):
    base, root = tmp_path_factory.mktemp("comfyui"), front_ends.root(version)
    other_family = Path(__file__).with_name("other_family.py").read_text()
    with started(base, "--front-end-root", str(root), kind="sd15", packs=[AVATARS], code=other_family) as server:
        yield server


@pytest.fixture(scope="module", params=[CANVAS, NODES_2], ids=["canvas", "nodes 2.0"])
def page(request, server):
    settings = dict(Comfy_VueNodes_Enabled=request.param, Comfy_Minimap_Visible=False, Comfy_RightSidePanel_IsOpen=False)
    settings["Comfy_Workflow_ShowMissingModelsWarning"] = False  # a dialog over all else, some time after a workflow was loaded
    with front_end(server, expected=getattr(request.module, "EXPECTED", ()), **settings) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield page


@pytest.fixture
def screen(page):
    return Screen(page)
