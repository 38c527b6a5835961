"""The workflows of the template browser: their thumbnails, and what ComfyUI needs to offer a missing model as a download."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy
import pytest
from circulation_demo.pictures import BANNER, EFFECT, ICON, made_of, templates
from PIL import Image
from support.host import ROOT
from support.workflows import PATHS as WORKFLOWS

CORES = "comfyui_workflow_templates_json"  # a package of ComfyUI's that the environment of the tests leaves out


def nodes(value):
    """Every node of a workflow, those of its subgraphs too."""
    if isinstance(value, dict):
        if isinstance(value.get("type"), str) and isinstance(value.get("properties"), dict):
            yield value
        value = list(value.values())
    for inner in value if isinstance(value, list) else []:
        yield from nodes(inner)


def offers(path):
    """(name, folder, address) of each model that a workflow offers; an address without what comes after ?."""
    for node in nodes(json.loads(path.read_text("utf-8"))):
        for model in node["properties"].get("models", []):
            if isinstance(model, dict) and "url" in model:
                yield model["name"], model["directory"], model["url"].partition("?")[0]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_loader_offers_its_files(path):
    for node in nodes(json.loads(path.read_text("utf-8"))):
        files = [value for value in node.get("widgets_values", []) if isinstance(value, str) and value.endswith(".safetensors")]
        models = node["properties"].get("models", [])
        assert [model["name"] for model in models] == files, node["type"]
        for model in models:
            assert re.fullmatch(rf"https://huggingface\.co/[\w./-]+/resolve/main/([\w.-]+/)*{model['name']}", model["url"])
    assert list(offers(path))


def test_one_file_has_one_address():
    offered = {offer for path in WORKFLOWS for offer in offers(path)}
    assert len({name for name, *_ in offered}) == len(offered) > 10


def test_comfyuis_own_templates_offer_the_same():
    spec = find_spec(CORES)
    if spec is None or spec.origin is None:
        pytest.skip(f"{CORES} is not installed")
    cores = {offer for path in Path(spec.origin).parent.rglob("*.json") for offer in offers(path)}
    assert {offer for path in WORKFLOWS for offer in offers(path)} <= cores


# --- pictures


def noise(picture: Image.Image) -> float:
    """The share of a picture that is like noise, sharp or smooth: there all neighbours differ, about equally.

    In drawings and photographs most neighbours differ little, and a few much.
    """
    pixels = numpy.asarray(picture.convert("RGB").resize((640, round(640 * picture.height / picture.width))), float)
    tiles = [pixels[y : y + 64, x : x + 64] for y in range(0, len(pixels) - 63, 32) for x in range(0, 577, 32)]
    steps = [numpy.abs(numpy.diff(tile, axis=1)).mean(-1) for tile in tiles]
    return float(numpy.mean([tile.std((0, 1)).mean() > 12 and numpy.median(step) > 0.5 * step.mean() for tile, step in zip(tiles, steps)]))


@pytest.mark.parametrize("grain", [1, 8, 32])
def test_noise_is_told_from_a_picture(grain):
    """As the images of a model with random weights are, on a fifth of a thumbnail."""
    blobs = numpy.random.default_rng(0).integers(0, 255, (320 // grain, 256 // grain, 3), dtype=numpy.uint8)
    with Image.open(ROOT / "workflows" / "circulation-basic.jpg") as picture:
        picture.paste(Image.fromarray(blobs).resize((256, 320), Image.Resampling.BICUBIC), (40, 80))
        assert noise(picture) > 0.1


@pytest.mark.parametrize("path", list(templates()), ids=lambda path: path.stem)
def test_a_thumbnail_is_a_picture_of_what_its_workflow_does_now(path):
    thumbnail = path.with_suffix(".jpg")
    again = "make it anew with python3 -m demo.pictures, and look at it"
    with Image.open(thumbnail) as picture:
        assert picture.format == "JPEG" and min(picture.size) >= 400
        assert picture.info["comment"].decode() == made_of(path), again
        assert noise(picture) < 0.1, again
    assert thumbnail.stat().st_size < 150_000


def test_the_pictures_of_the_registry_have_the_shapes_it_asks_for():
    with Image.open(ICON) as icon, Image.open(BANNER) as banner, Image.open(EFFECT) as effect:
        assert icon.width == icon.height <= 400
        assert banner.width / banner.height == pytest.approx(21 / 9)
        assert max(noise(picture) for picture in (icon, banner, effect)) < 0.1
