"""The demo itself. `python3 -m demo` starts this file in the environment it has prepared, with its options as JSON."""

import io
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont

from . import DEMO, ROOT, graph
from .server import Server, ServerError

AVATARS = Path(__file__).with_name("avatars")
OUTPUT = DEMO / "output"
BASE = ROOT / ".comfy" / "base"


def main(options):
    print("Starting ComfyUI ...", flush=True)
    with Server(os.environ["COMFYUI_PATH"], BASE, cpu=not torch.cuda.is_available(), packs=[AVATARS]) as server:
        if options.serve:
            serve(server)
        else:
            compare(server, options)


def serve(server):
    server.post("/settings", {"Comfy.TutorialCompleted": False})  # the page then opens with the template browser
    print(f"ComfyUI with Circulation runs at {server.url} (Ctrl+C ends it).")
    print("Choose 'avatars' among the extensions in the template browser (Workflow → Browse Templates)", end=" ")
    print("for graphs that run with the model in the box.", flush=True)
    server.process.wait()
    server.check_alive()


def compare(server, options):
    prompts = options.prompt or graph.PROMPTS
    print(f"Sampling {len(prompts) * graph.IMAGES} avatars with each of {len(graph.SETTINGS)} settings ...", flush=True)
    outputs = server.run(graph.build(prompts, options.seed, options.steps, options.beta))
    avatars: dict[str, list] = {name: [] for name in graph.SETTINGS}
    for name, images in avatars.items():
        for p in range(len(prompts)):
            images += [picture(server, image) for image in outputs[f"{name} save {p}"]["images"]]
    sheet = picture(server, outputs["sheet"]["images"][0])
    left = rows_of(avatars, prompts, options)
    OUTPUT.mkdir(exist_ok=True)
    left.save(OUTPUT / "avatars.png")
    sheet.save(OUTPUT / "stability.png")
    beside(left, sheet).save(OUTPUT / "comparison.png")
    off = numpy.stack([numpy.asarray(image, float) for image in avatars[graph.OFF]])
    width = max(map(len, avatars))
    for name, images in avatars.items():
        if name != graph.OFF:
            changed = numpy.abs(numpy.stack([numpy.asarray(image, float) for image in images]) - off).mean() / 255
            print(f"{name:{width}} pixels differ by {changed:.1%} of full range on average")
    print(f"Pictures: {OUTPUT / 'comparison.png'} (its parts: avatars.png, stability.png)")


def picture(server, output):
    return Image.open(io.BytesIO(server.image(output))).convert("RGB")


def rows_of(avatars, prompts, options):
    """A row of avatars for each setting, in the order of the prompts."""
    size, gap, margin, line = 128, 8, 20, 26
    columns = len(next(iter(avatars.values())))
    title = f"The same prompts and seed ({options.seed}) with and without Circulation, beta {options.beta:g}, {options.steps} steps"
    width = 2 * margin + columns * (size + gap) - gap
    picture = Image.new("RGB", (width, 2 * margin + line + len(avatars) * (size + line + gap) + len(prompts) * 20), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((margin, margin), title, "black", ImageFont.load_default(18))
    y = margin + line + gap
    for name, images in avatars.items():
        draw.text((margin, y), f"Circulation {name}", "black", ImageFont.load_default(17))
        for column, image in enumerate(images):
            picture.paste(image, (margin + column * (size + gap), y + line))
        y += size + line + gap
    for number, prompt in enumerate(prompts, 1):
        draw.text((margin, y), f"{number}: {prompt}", "dimgray", ImageFont.load_default(14))
        y += 20
    return picture


def beside(left, right):
    both = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that ComfyUI is stopped too
    try:
        main(SimpleNamespace(**json.loads(sys.argv[1])))
    except KeyboardInterrupt:
        print()
    except ServerError as error:
        sys.exit(str(error))
