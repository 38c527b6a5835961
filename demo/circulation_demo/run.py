"""The demo itself. `python3 -m demo` starts this file in the environment it has prepared, with its options as JSON."""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

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
    print(f"Sampling {len(prompts) * graph.IMAGES} avatars without Circulation and with alpha {graph.ALPHAS} ...", flush=True)
    outputs = server.run(graph.build(prompts, options.seed, options.steps, options.beta))
    OUTPUT.mkdir(exist_ok=True)
    labels = outputs["sheet"]["comparison"][0]["labels"]
    shown = {"sheet": outputs["sheet"], "curve": outputs["curve"]}
    pictures = {f"{name}.png": output["images"][0] for name, output in shown.items()}
    pictures |= {f"stability, {label}.png": image for label, image in zip(labels, outputs["readout"]["images"])}
    for name, image in pictures.items():
        (OUTPUT / name).write_bytes(server.image(image))
    print(*outputs["table"]["text"], "", sep="\n")
    for number, prompt in enumerate(prompts):
        print(f"Columns {number * graph.IMAGES + 1} to {(number + 1) * graph.IMAGES} of the sheet: {prompt}")
    print(f"Pictures in {OUTPUT}: {'; '.join(pictures)}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that ComfyUI is stopped too
    try:
        main(SimpleNamespace(**json.loads(sys.argv[1])))
    except KeyboardInterrupt:
        print()
    except ServerError as error:
        sys.exit(str(error))
