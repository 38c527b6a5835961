"""The pictures of the README, of the registry and of the template browser: all of the avatar model, in a real ComfyUI.

`python3 -m demo.pictures` starts this file in the environment it has prepared.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy
from matplotlib import font_manager
from PIL import Image, ImageChops, ImageDraw, ImageFont

from . import DEMO, ROOT, graph
from .digest import digest
from .graph import node
from .server import Server, ServerError

AVATARS = Path(__file__).with_name("avatars")
BASE = ROOT / ".comfy" / "base"
FOLDERS = [ROOT / "workflows", AVATARS / "example_workflows"]
EFFECT, ICON, BANNER = (ROOT / "docs" / "pictures" / f"{name}.png" for name in ("effect", "icon", "banner"))

SEED, STEPS, BETA = 1, 20, 5.0
ALPHAS = "1.05, 1.2, 0.8"  # after off, which the sheet puts first
STRONG = "1.2"
SMALL = "1.05, 1.1, 1.2"  # with beta 3: what the templates with a sheet come with

FAMILIES = {
    "sd3": "SD 3.5", "flux": "Flux", "z-image": "Z-Image", "qwen-image": "Qwen-Image", "hidream-o1": "HiDream-O1",
    "wan": "Wan 2.1", "ltx2": "LTX 2", "minimax-h3": "MiniMax H3",
}  # fmt: skip
HALVES, SHEET, SCHEDULE, READOUT, COMPARE = "halves", "sheet", "schedule", "readout", "compare"
SHOWN = {  # of each template: its title, and what is shown of it
    "circulation-basic": ("Compare: SDXL", HALVES),
    **{f"circulation-{key}": (f"Compare: {name}", HALVES) for key, name in FAMILIES.items()},
    "circulation-compare-images": ("Compare by a slider: SDXL", HALVES),
    "avatars-circulation": ("Compare", HALVES),
    "circulation-schedule": ("Paint a schedule: SDXL", SCHEDULE),
    **{f"{name}{key}": (f"{title}: {family}", SHEET)
       for name, title in (("circulation-sweep", "Sweep"), ("find-your-alpha", "Find your alpha"))
       for key, family in (("", "SDXL"), ("-flux", "Flux"), ("-z-image", "Z-Image"))},
    "avatars-sweep": ("Sweep", SHEET),
    "stability-readout": ("Stability: SDXL", READOUT),
    "baseline-vs-circulation": ("Stability compared: SDXL", COMPARE),
    "avatars-stability": ("Stability compared", COMPARE),
}  # fmt: skip

SIDE, MARGIN, TITLE, TEXT = 640, 12, 40, 24  # pixels
INK, PAPER, MARK = "#1b1b1b", "white", "#0072B2"
NOTE = "pictures of a small demo model"


def templates() -> Iterator[Path]:
    """The workflows that the template browser shows, the demo's too; the thumbnail of each lies beside it."""
    return (path for folder in FOLDERS for path in sorted(folder.glob("*.json")))


def made_of(workflow: Path) -> str:
    """A digest of all that a thumbnail shows. The JPEG has it as its comment."""
    grids = [node["widgets_values"] for node in json.loads(workflow.read_text("utf-8"))["nodes"] if node["type"] == "CirculationSchedule"]
    prompts = sweep(ALPHAS, BETA, None), stability()
    return digest(*SHOWN[workflow.stem], grids, *prompts, Path(__file__), DEMO / "model" / "avatars.safetensors")


class Samples:
    """What the demo's prompts and seed come to under the settings that are shown."""

    def __init__(self, server: Server):
        self.server = server

    @cache  # noqa: B019  there is one, as long as the program
    def sheet(self, alphas: str, beta: float = BETA, grid: str | None = None) -> tuple[Image.Image, list[str], list[list[Image.Image]]]:
        """Comparison Sheet with what changed framed, its labels, and its cells by row."""
        outputs = self.server.run(sweep(alphas, beta, grid))["sheet"]
        shown = outputs["comparison"][0]
        return self.picture(outputs["images"][0]), shown["labels"], [[self.picture(cell) for cell in row] for row in shown["cells"]]

    @cache  # noqa: B019
    def figures(self) -> dict[str, Image.Image]:
        """The upper half of Stability Readout of the model as it is, and of Stability Compare of it with the strong setting."""
        outputs = self.server.run(stability())
        figures = {READOUT: (outputs["readout 0"], 0.68), COMPARE: (outputs["compare"], 0.645)}
        made = {kind: (self.picture(output["images"][0]), height) for kind, (output, height) in figures.items()}
        return {kind: figure.crop((0, 0, figure.width, round(height * figure.width))) for kind, (figure, height) in made.items()}

    def picture(self, file) -> Image.Image:
        return Image.open(BytesIO(self.server.image(file))).convert("RGB")


def sweep(alphas: str, beta: float, grid: str | None) -> dict:
    prompt = graph.build(graph.PROMPTS, SEED, STEPS, beta)
    prompt["sweep"]["inputs"]["alpha"] = alphas
    prompt["sheet"]["inputs"]["frame_changes"] = True
    if grid:
        prompt["schedule"] = node("CirculationSchedule", grid=grid)
        prompt["sweep"]["inputs"]["schedule"] = ["schedule", 0]
    return prompt


def stability() -> dict:
    """Two runs of the first prompt, and the sheet of both."""
    full = graph.build(graph.PROMPTS[:1], SEED, STEPS, BETA)
    prompt = {name: full[name] for name in ("model", "negative", "latent", "prompt 0")}
    model, where = ["model", 0], dict(blocks="all", branches="both")
    prompt["strong"] = node("CirculationControl", model=model, alpha=float(STRONG), beta=BETA, start_percent=0.0, end_percent=1.0, **where)
    for number, patched in enumerate((model, ["strong", 0])):
        probe, sampler = f"probe {number}", f"sampler {number}"
        prompt[probe] = node("StabilityProbe", model=patched, measure_in="value space", every_n_steps=1, **where)
        prompt[sampler] = {**full["sampler 0"], "inputs": {**full["sampler 0"]["inputs"], "model": [probe, 0]}}
        prompt[f"readout {number}"] = node(
            "StabilityReadout", stability=[probe, 1], plot="sheet", measure="energy", after=[sampler, 0]
        )
    prompt["compare"] = node("StabilityCompare", stability_1=["readout 0", 4], stability_2=["readout 1", 4])
    return prompt


def most_changed(before: list[Image.Image], after: list[Image.Image]) -> list[int]:
    """The places of the pictures, those first that differ most."""
    change = [float(numpy.asarray(ImageChops.difference(*pair)).mean()) for pair in zip(before, after)]
    return sorted(range(len(change)), key=lambda place: -change[place])


# --- drawing


@cache
def font(size: int, weight: str = "normal") -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight=weight)), size)


def card(title: str, note: str, body: Image.Image) -> Image.Image:
    """A square picture: a title, the body as large as it can be, and a note."""
    made = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(made)
    draw.rectangle((0, 0, SIDE, TITLE + 2 * MARGIN), fill=MARK)
    draw.text((SIDE / 2, MARGIN + TITLE / 2), title, PAPER, font(TITLE - 4, "bold"), anchor="mm")
    draw.text((SIDE / 2, SIDE - MARGIN - TEXT / 2), note, INK, font(TEXT - 4), anchor="mm")
    top, bottom = TITLE + 3 * MARGIN, SIDE - 2 * MARGIN - TEXT
    body.thumbnail((SIDE - 2 * MARGIN, bottom - top), Image.Resampling.LANCZOS)
    made.paste(body, ((SIDE - body.width) // 2, top + (bottom - top - body.height) // 2))
    return made


def columns(parts: Iterable[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures beside each other, each below its label."""
    parts = list(parts)
    height, label = max(picture.height for _, picture in parts), TEXT + MARGIN
    made = Image.new("RGB", (sum(picture.width + MARGIN for _, picture in parts) - MARGIN, height + label), PAPER)
    draw, left = ImageDraw.Draw(made), 0
    for words, picture in parts:
        draw.text((left + picture.width / 2, label / 2), words, INK, font(TEXT, "bold"), anchor="mm")
        made.paste(picture, (left, label))
        left += picture.width + MARGIN
    return made


def grid(rows: list[list[Image.Image]], side: int, gap: int = MARGIN // 2) -> Image.Image:
    made = Image.new("RGB", (len(rows[0]) * (side + gap) - gap, len(rows) * (side + gap) - gap), PAPER)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            made.paste(picture.resize((side, side), Image.Resampling.NEAREST), (x * (side + gap), y * (side + gap)))
    return made


def painted(text: str, size: tuple[int, int]) -> Image.Image:
    """A schedule: the darker, the stronger."""
    factors = numpy.asarray(json.loads(text)["grid"], float)
    colours = numpy.asarray(Image.new("RGB", (1, 1), MARK))[0, 0]
    shades = 255 - factors[..., None] / max(1.0, factors.max()) * (255 - colours)
    return Image.fromarray(shades.astype(numpy.uint8)).resize(size, Image.Resampling.NEAREST)


def thumbnail(samples: Samples, workflow: Path) -> Image.Image:
    title, kind = SHOWN[workflow.stem]
    if kind in (READOUT, COMPARE):
        return card(title, "figures of a small demo model", samples.figures()[kind].copy())
    if kind == SHEET:
        _, labels, cells = samples.sheet(SMALL, 3.0)
        places = most_changed(cells[0], cells[-1])[:4]
        side = 124
        words = Image.new("RGB", (96, 4 * (side + MARGIN // 2)), PAPER)
        for number, label in enumerate(labels):
            at = (48, number * (side + MARGIN // 2) + side / 2)
            ImageDraw.Draw(words).text(at, label.removeprefix("alpha ").partition(",")[0], INK, font(TEXT, "bold"), anchor="mm")
        shown = grid([[row[place] for place in places] for row in cells], side)
        return card(title, f"alpha, at beta 3: {NOTE}", columns([("", words), ("", shown)]))
    _, _, cells = samples.sheet(ALPHAS)
    off, strong = cells[0], cells[2]
    places = most_changed(off, strong)[:2]

    def half(row: list[Image.Image], side: int) -> Image.Image:
        return grid([[row[place]] for place in places], side)

    if kind == HALVES:
        return card(title, f"at beta 5: {NOTE}", columns([("off", half(off, 232)), (f"alpha {STRONG}", half(strong, 232))]))
    nodes = json.loads(workflow.read_text("utf-8"))["nodes"]
    (text,) = (node["widgets_values"][0] for node in nodes if node["type"] == "CirculationSchedule")
    _, _, (off, scheduled) = samples.sheet(STRONG, BETA, text)
    before, after = half(off, 190), half(scheduled, 190)
    parts = [("off", before), ("schedule", painted(text, before.size)), (f"alpha {STRONG}", after)]
    return card(title, f"at beta 5: {NOTE}", columns(parts))


def icon(samples: Samples) -> Image.Image:
    """An avatar, half as it is and half circulated, within two arrows."""
    _, _, cells = samples.sheet(ALPHAS)
    place = most_changed(cells[0], cells[2])[1]  # the first has a white background
    side, inner, scale = 400, 256, 4
    made = Image.new("RGB", (side * scale, side * scale), PAPER)
    draw = ImageDraw.Draw(made)
    middle, radius, width = side * scale / 2, 0.45 * side * scale, 0.05 * side * scale
    for start in (20, 200):
        draw.arc((middle - radius, middle - radius, middle + radius, middle + radius), start, start + 130, MARK, round(width))
        angle = numpy.radians(start + 130)
        outward, onward = numpy.array([numpy.cos(angle), numpy.sin(angle)]), numpy.array([-numpy.sin(angle), numpy.cos(angle)])
        tip = middle + outward * (radius - width / 2)
        draw.polygon([tuple(tip + outward * 1.6 * width), tuple(tip - outward * 1.6 * width), tuple(tip + onward * 3 * width)], MARK)
    made = made.resize((side, side), Image.Resampling.LANCZOS)
    face = [cells[row][place].resize((inner, inner), Image.Resampling.NEAREST) for row in (0, 2)]
    face[0].paste(face[1].crop((inner // 2, 0, inner, inner)), (inner // 2, 0))
    disc = Image.new("L", (inner * scale, inner * scale))
    ImageDraw.Draw(disc).ellipse((0, 0, inner * scale, inner * scale), 255)
    made.paste(face[0], ((side - inner) // 2, (side - inner) // 2), disc.resize((inner, inner), Image.Resampling.LANCZOS))
    return made


def banner(samples: Samples) -> Image.Image:
    """21:9, the three pictures that change most under three settings, with what they are."""
    _, _, cells = samples.sheet(ALPHAS)
    made = Image.new("RGB", (1260, 540), PAPER)
    draw = ImageDraw.Draw(made)
    draw.text((60, 170), "Circulation", MARK, font(78, "bold"), anchor="lm")
    for number, words in enumerate(("The same seeds, another current", "in the model's self-attention.", "Shown: a small demo model.")):
        draw.text((60, 262 + 44 * number), words, INK, font(28), anchor="lm")
    places = most_changed(cells[0], cells[2])[:3]
    for number, (label, row) in enumerate((("0.8", 3), ("off", 0), (STRONG, 2))):
        top = 20 + 170 * number
        draw.text((720, top + 80), label, INK, font(34, "bold"), anchor="rm")
        made.paste(grid([[cells[row][place] for place in places]], 160, 10), (740, top))
    return made


def main():
    with Server(os.environ["COMFYUI_PATH"], BASE, packs=[AVATARS]) as server:
        samples = Samples(server)
        EFFECT.parent.mkdir(exist_ok=True)
        for path, picture in ((EFFECT, samples.sheet(ALPHAS)[0]), (ICON, icon(samples)), (BANNER, banner(samples))):
            picture.save(path, optimize=True)
            print(path.relative_to(ROOT))
        for workflow in templates():
            path = workflow.with_suffix(".jpg")
            thumbnail(samples, workflow).save(path, quality=85, comment=made_of(workflow).encode())
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that ComfyUI is stopped too
    try:
        main()
    except ServerError as error:
        sys.exit(str(error))
