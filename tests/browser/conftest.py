"""A server for each front end, and in each front end both ways to draw nodes.

Of these six combinations a test that asks for a `page` runs in one, the oldest or the newest: its name decides which, so that each panel
is tried in both. Marked `both_renderers` it runs in both of them, since it is about how things look, and marked `every_front_end` in all
six, since these differ in what it is about. With `--every-front-end` all tests run in all six.
"""

import zlib
from pathlib import Path

import pytest
from support import front_ends
from support.screen import Screen
from support.server import AVATARS, front_end, started

CANVAS, NODES_2 = False, True  # whether Nodes 2.0 draws the nodes
OLDEST, NEWEST = (front_ends.OLDEST, CANVAS), (front_ends.NEWEST, NODES_2)


def pytest_collection_modifyitems(config, items):
    named = any("[" in argument for argument in config.args)  # one combination of a test
    if not named and not config.getoption("every_front_end"):
        config.hook.pytest_deselected(items=[item for item in items if not is_usual(item)])
        items[:] = filter(is_usual, items)


def is_usual(item):
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if not {"version", "page"} <= params.keys() or item.get_closest_marker("every_front_end"):
        return True
    one = NEWEST if zlib.crc32(item.originalname.encode()) & 256 else OLDEST  # this bit shares the time out evenly
    return (params["version"], params["page"]) in ({OLDEST, NEWEST} if item.get_closest_marker("both_renderers") else {one})


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
