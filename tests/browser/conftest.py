"""Each front end with the real server, and in it both ways to draw nodes."""

import pytest
from support import front_ends
from support.screen import Screen
from support.server import front_end, started


@pytest.fixture(scope="module", params=front_ends.VERSIONS)
def server(request, tmp_path_factory):
    root = front_ends.root(request.param)
    with started(tmp_path_factory.mktemp("comfyui"), "--front-end-root", str(root), kind="sd15") as server:
        yield server


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "nodes 2.0"])
def page(request, server):
    settings = dict(Comfy_VueNodes_Enabled=request.param, Comfy_Minimap_Visible=False, Comfy_RightSidePanel_IsOpen=False)
    settings["Comfy_Workflow_ShowMissingModelsWarning"] = False  # a dialog over all else, some time after a workflow was loaded
    with front_end(server, expected=getattr(request.module, "EXPECTED", ()), **settings) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield page


@pytest.fixture
def screen(page):
    return Screen(page)
