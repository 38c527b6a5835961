"""The real ComfyUI server with the pack in its custom_nodes, a stand-in for SDXL, and its real front end in Chromium."""

import contextlib
import functools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from circulation_demo import server as demo
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
AVATARS = ROOT / "demo" / "circulation_demo" / "avatars"  # the demo's pack of nodes and graphs
COMFY = Path(os.environ["COMFYUI_PATH"])

PATIENCE = 240  # seconds that anything may take, on a machine that has much else to do: only what hangs is given up
READY = "window.app?.extensionManager && window.app?.canvas && window.app?.graph"  # of the front end

CHROMIUM_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--js-flags=--initial-heap-size=512 --min-semi-space-size=32 --max-semi-space-size=64",  # MiB: a page's start is half garbage else
]
# What the front end itself logs as errors, most of it on a fresh start with any pack or none.
HARMLESS = [
    r"404 .*/(favicon\.ico|user\.css|userdata\?dir=\w+.*|comfy\.templates\.json|templates/index\.json)$",  # none of them exists yet
    r"404 .*/docs/\w+/en\.md$",  # a help page is looked for in the user's language first
    r"^Unknown message type circulation\.",  # after a reload in the middle of a run events come before the page has loaded its packs
    r"Error loading core workflow templates",  # a package of ComfyUI's that is left out here
    r"violates the (following|document's) Content Security Policy",  # --disable-api-nodes keeps it from asking other hosts
    r"^Failed to fetch$",  # what comes of that in 1.49.6
    r"^Error fetching file size: ",  # and in 1.32.9, of the model files that a workflow offers
    r"/api/jobs\?|JobsApiError|^\[Jobs API\]",  # 1.49.6 and newer on an older ComfyUI, which has no such thing
    r"^ComfyApp graph accessed before initialization",  # 1.49.6
    r"^Attempted to cleanup event listeners for graph that was never set up",  # 1.32.9, when Nodes 2.0 is turned on or off
    r"^TypeError: .*reading 'id'.*\s+at onChange",  # 1.32.9, on the first setting that changes
]


_made = tempfile.TemporaryDirectory()


@functools.cache
def standin(kind):
    """A checkpoint, made once for all servers."""
    path = Path(_made.name, f"{kind}.safetensors")
    subprocess.run([sys.executable, Path(__file__).with_name("standin.py"), COMFY, kind, path], check=True)
    return path


def started(base, *arguments, kind="sdxl", packs=(), code=None):
    """A server to be entered, with a checkpoint under the name of SDXL's.

    `packs` are folders of further custom nodes, `code` is that of a further one in a file of its own.
    """
    if code is not None:
        (base / "custom_nodes").mkdir()
        (base / "custom_nodes" / "of_the_test.py").write_text(code)
    checkpoint = base / "models" / "checkpoints" / "sd_xl_base_1.0.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.symlink_to(standin(kind))
    os.environ["OMP_NUM_THREADS"] = "1"  # steadier than all cores where other work runs too
    # Without the prompt in the PNG, equal images are equal files.
    server = demo.Server(COMFY, base, packs=packs, arguments=["--disable-metadata", *arguments])
    server.patience = PATIENCE
    return server


@contextlib.contextmanager
def front_end(server, scale=1, expected=(), **options):
    """A page with the front end ready. Fails at the end on errors in the console and on dialogs that opened.

    `expected` are errors of the console that a test brings about, `options` are ComfyUI's settings, with _ for the dots in their names.
    """
    # of the page before, where a test failed
    server.post("/queue", {"clear": True})
    server.post("/interrupt", {})
    (server.base / "user" / "default" / "comfy.settings.json").unlink(missing_ok=True)
    server.post("/settings", {"Comfy.TutorialCompleted": True, **{name.replace("_", "."): value for name, value in options.items()}})
    errors = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=CHROMIUM_ARGUMENTS, timeout=1000 * PATIENCE)
        page = browser.new_page(viewport={"width": 1280, "height": 960}, device_scale_factor=scale)
        page.on("console", lambda message: errors.append(f"{message.text} {message.location['url']}") if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(server.url)
        page.wait_for_function(READY)
        yield page
        dialogs = page.locator("[role=dialog]").all_inner_texts()
        browser.close()
    unexpected = [error for error in errors if not any(re.search(harmless, error) for harmless in (*HARMLESS, *expected))]
    assert not dialogs and not unexpected, (dialogs, unexpected)


def open_workflow(page, workflow, without_files=False):
    """Load a workflow in the front end and return its prompt. Fails on missing nodes, and on missing model files unless told not to."""
    page.evaluate("workflow => app.loadGraphData(workflow, true, true, 'workflow')", workflow)
    wrong = "!LiteGraph.registered_node_types[node.type]" + ("" if without_files else " || node.has_errors")
    missing = page.evaluate(f"app.graph.nodes.filter(node => {wrong}).map(node => node.type)")
    assert not missing, missing
    return prompt_of(page)


def prompt_of(page):
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def small(prompt, steps=2):
    """The prompt with small images and few steps."""
    for node in prompt.values():
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"].update(width=64, height=64)
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = steps
    return prompt
