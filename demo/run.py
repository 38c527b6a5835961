"""The demo itself. `python3 -m demo` starts this file in the environment it has prepared, with its options as JSON."""

import copy
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont
from server import Server, ServerError

DEMO = Path(__file__).resolve().parent
OUTPUT = DEMO / "output"
BASE = DEMO.parent / ".comfy" / "base"
WORKFLOW = json.loads((DEMO / "workflow.json").read_text())
CHECKPOINT = WORKFLOW["checkpoint"]["inputs"]["ckpt_name"]


def main(options):
    comfy = os.environ["COMFYUI_PATH"]
    make_checkpoint(comfy)
    print("Starting ComfyUI ...", flush=True)
    with Server(comfy, BASE, cpu=not torch.cuda.is_available()) as server:
        if options.serve:
            serve(server)
        else:
            compare(server, options)


def make_checkpoint(comfy):
    """Make the stand-in for a real model, unless it is there and newer than the code that makes it."""
    script, path = DEMO / "standin.py", BASE / "models" / "checkpoints" / CHECKPOINT
    if path.exists() and path.stat().st_mtime > script.stat().st_mtime:
        return
    print("Making a small model with random weights ...", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, script, comfy, "sd15", path], check=True)


def serve(server):
    server.post("/settings", {"Comfy.TutorialCompleted": True})  # otherwise an empty template browser covers the page
    print(f"ComfyUI with Circulation runs at {server.url} (Ctrl+C ends it).")
    print(f"Drop {DEMO / 'workflow.json'} onto the page for a graph to start from; it runs with the model that is there.", flush=True)
    server.process.wait()
    server.check_alive()


def compare(server, options):
    baseline = sample(server, options, "baseline", alpha=1.0)
    circulation = sample(server, options, "circulation", alpha=options.alpha)
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "baseline.png").write_bytes(baseline)
    (OUTPUT / "circulation.png").write_bytes(circulation)
    left, right = (Image.open(io.BytesIO(image)).convert("RGB") for image in (baseline, circulation))
    side_by_side(left, right, options).save(OUTPUT / "comparison.png")
    changed = (numpy.asarray(left) != numpy.asarray(right)).any(-1).mean()
    print(f"Pixels that changed: {changed:.1%}")
    print(f"Side by side: {OUTPUT / 'comparison.png'} (and baseline.png, circulation.png)")


def sample(server, options, name, alpha):
    prompt = copy.deepcopy(WORKFLOW)
    prompt["save"]["inputs"]["filename_prefix"] = name
    prompt["circulation"]["inputs"].update(alpha=alpha, beta=options.beta)
    prompt["sampler"]["inputs"].update(seed=options.seed, steps=options.steps)
    prompt["latent"]["inputs"].update(width=options.size, height=options.size)

    def show(done, of):
        print(f"\r{name:12} {bar(done, of)}", end="", flush=True)

    outputs = server.run(prompt, show if sys.stdout.isatty() else None)
    print(f"\r{name:12} {bar(options.steps, options.steps)}", flush=True)
    return server.image(outputs["save"]["images"][0])


def bar(done, of, width=30):
    filled = width * done // of
    return f"[{'#' * filled}{'.' * (width - filled)}] {done}/{of} steps"


def side_by_side(left, right, options):
    size, margin, line = 512, 24, 30
    picture = Image.new("RGB", (2 * size + 3 * margin, size + 2 * margin + 3 * line), "white")
    draw = ImageDraw.Draw(picture)
    captions = ["Circulation off", f"Circulation: alpha {options.alpha:g}, beta {options.beta:g}"]
    for column, (image, caption) in enumerate(zip((left, right), captions)):
        x = margin + column * (size + margin)
        picture.paste(image.resize((size, size), Image.Resampling.LANCZOS), (x, margin))
        draw.text((x, size + margin + 8), caption, "black", ImageFont.load_default(20))
    note = (
        f"The same seed ({options.seed}), {options.steps} steps. The model has random weights and knows no pictures:\n"
        "see what changes, not how good it is. Random weights need stronger settings than the paper's 1.05 and 3."
    )
    draw.text((margin, size + margin + line + 10), note, "dimgray", ImageFont.load_default(16))
    return picture


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that ComfyUI is stopped too
    try:
        main(SimpleNamespace(**json.loads(sys.argv[1])))
    except KeyboardInterrupt:
        print()
    except ServerError as error:
        sys.exit(str(error))
