"""What the front end offers where a workflow's model files are missing: a download for each."""

import json

import pytest
from support import front_ends, workflows
from support.screen import EMPTY
from support.server import front_end

OFFERED = "() => [...document.querySelectorAll('[data-testid=missing-model-download]')].map(button => button.ariaLabel)"
pytestmark = pytest.mark.parametrize("version", [front_ends.MIDDLE, front_ends.NEWEST], indirect=True)  # 1.32.9 only marks the loader


@pytest.fixture(scope="module")
def page(server):
    (checkpoint,) = (server.base / "models" / "checkpoints").iterdir()
    target = checkpoint.readlink()
    checkpoint.unlink()
    try:
        with front_end(server) as page:
            yield page
    finally:
        checkpoint.symlink_to(target)


def load(page, workflow):
    page.evaluate("graph => app.loadGraphData(graph, true, true, app.extensionManager.workflow.activeWorkflow)", workflow)


@pytest.mark.parametrize("path", workflows.ALL)
def test_each_missing_file_can_be_downloaded(page, path):
    load(page, EMPTY)
    page.wait_for_function(f"({OFFERED})().length === 0")
    workflow = json.loads(path.read_text("utf-8"))
    load(page, workflow)
    details, download = page.get_by_text("View details"), page.get_by_test_id("missing-model-download")
    details.or_(download).first.wait_for()
    if details.is_visible():
        details.click()
        download.first.wait_for()
    files = {model["name"] for node in workflow["nodes"] for model in node["properties"].get("models", [])}
    assert files and sorted(page.evaluate(OFFERED)) == sorted(f"Download {name}" for name in files)
