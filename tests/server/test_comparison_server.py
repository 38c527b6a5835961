"""End to end: Comparison Sheet on the real ComfyUI server, behind lists of models."""

import io

import numpy
import pytest
from PIL import Image
from support.executor import node
from support.server import demo, started

ALPHAS = (1.0, 1.1, 1.3)
LABELS = ["off", "alpha 1.1, beta 3", "alpha 1.3, beta 3"]
LISTS = '''
class Any(str):
    __hash__, __ne__ = str.__hash__, lambda self, other: False

class AsList:
    """Whatever is connected, as a list; texts by lines."""
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_IS_LIST = (Any("*"),), "listed", "test", (True,)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {f"item_{number}": (Any("*"),) for number in range(4)}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    def listed(self, **items):
        return ([items[name] for name in sorted(items)],)

NODE_CLASS_MAPPINGS = {"AsList": AsList}
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with started(tmp_path_factory.mktemp("comfyui"), code=LISTS) as server:
        yield server


def listed(*items):
    return node("AsList", **{f"item_{number}": item for number, item in enumerate(items)})


def prompt(seed, **sheet):
    """A list of models through one sampler, and what comes out of it on a sheet."""
    settings = dict(steps=2, cfg=2.0, sampler_name="euler", scheduler="normal", denoise=1.0)
    nodes = {
        "model": node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
        "positive": node("CLIPTextEncode", clip=["model", 1], text="a street musician"),
        "negative": node("CLIPTextEncode", clip=["model", 1], text="blurry"),
        "latent": node("EmptyLatentImage", width=128, height=64, batch_size=2),
        "models": listed(*([f"alpha {alpha}", 0] for alpha in ALPHAS)),
        "probe": node("StabilityProbe", model=["models", 0], measure_in="value space", every_n_steps=1, blocks="all", branches="both"),
        "sampler": node("KSampler", model=["probe", 0], positive=["positive", 0], negative=["negative", 0], latent_image=["latent", 0],
                        seed=seed, **settings),
        "images": node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
        "readout": node("StabilityReadout", stability=["probe", 1], plot="curves", measure="energy", after=["sampler", 0]),
        "labels": listed(*LABELS),
        "sheet": node("ComparisonSheet", **{"images": ["images", 0], "labels": ["labels", 0], **sheet}),
        "table": node("PreviewAny", source=["sheet", 2]),
        "curve": node("PreviewImage", images=["sheet", 1]),
        "saved": node("SaveImage", images=["images", 0], filename_prefix="cells"),
        "written": node("SaveImage", images=["sheet", 0], filename_prefix="sheet"),
    }  # fmt: skip
    for alpha in ALPHAS:
        range = dict(beta=3.0, start_percent=0.0, end_percent=1.0, blocks="all")
        nodes[f"alpha {alpha}"] = node("CirculationControl", model=["model", 0], alpha=alpha, **range)
    return nodes


def picture(server, entry):
    return Image.open(io.BytesIO(server.image(entry)))


def test_a_list_of_models_comes_out_as_a_sheet(server):
    outputs = server.run(prompt(1, stability=["readout", 4], cell=128))
    (shown,), (written,) = outputs["sheet"]["images"], outputs["written"]["images"]
    sheet = picture(server, shown)
    assert shown["type"] == "temp"
    assert (numpy.asarray(sheet) == numpy.asarray(picture(server, written))).all()
    lines = outputs["table"]["text"][0].splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["off (baseline)", *LABELS[1:]]
    assert "instability" in lines[0] and all("nan" not in line for line in lines)
    assert picture(server, outputs["curve"]["images"][0]).width == 1024
    (message,) = outputs["sheet"]["comparison"]
    assert message["labels"] == LABELS and message["columns"] == 2 and message["baseline"] == 0
    saved = iter(outputs["saved"]["images"])  # in the order of the list
    for row in message["cells"]:
        for cell in row:
            expected = numpy.asarray(picture(server, next(saved)), int)
            assert abs(numpy.asarray(picture(server, cell), int) - expected).max() <= 1  # Save Image cuts where we round


def test_labels_can_be_written_in_the_node_and_options_sample_nothing_again(server):
    ran = [server.run(prompt(2, labels="off\nsome\nmuch")), server.run(prompt(2, labels="off\nsome\nmuch", sort_columns=True))]
    assert [outputs["sheet"]["comparison"][0]["labels"] for outputs in ran] == [["off", "some", "much"]] * 2
    assert ran[1].get("saved", ran[0]["saved"]) == ran[0]["saved"]  # no new files: all from the cache


@pytest.mark.parametrize("inputs, words", [
    ({"labels": "a\nb"}, "ComparisonSheet: images has 3 batches and labels has 2 entries"),
    ({"scores": ["number", 0]}, "ComparisonSheet: images has 3 batches and scores has 1 entries"),
    ({"stability": ["probe", 1]}, "ComparisonSheet: stability comes straight from a probe"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_and_the_queue_goes_on(server, inputs, words):
    nodes = {**prompt(3, **inputs), "number": listed(0.5)}
    with pytest.raises(demo.ServerError, match=words):
        server.run(nodes)
    assert server.run(prompt(3))["sheet"]["images"]


def test_a_missing_link_is_refused_before_anything_is_sampled(server):
    nodes = prompt(4)
    del nodes["sheet"]["inputs"]["images"]
    with pytest.raises(demo.ServerError, match="images"):
        server.run(nodes)
