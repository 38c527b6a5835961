"""Draw, train, judge. `python3 -m demo.train` starts this file in the environment it has prepared, with its options as JSON."""

import json
import os
import shutil
import sys
from types import SimpleNamespace

import numpy
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .. import DEMO, ROOT
from ..avatars.factors import FACTORS
from ..evidence import classifier
from ..inprocess import args
from . import render

args.cpu = not torch.cuda.is_available()

from . import train  # noqa: E402

WORK = ROOT / ".comfy" / "train"
SHIPPED = ("avatars.safetensors", "classifier.safetensors", "train.npz", "held_out.npz", "loss.csv", "loss.png")


def main(options):
    torch.set_num_threads(options.threads or os.cpu_count())
    WORK.mkdir(exist_ok=True)
    data = {split: render.render(split, WORK) for split in render.SPLITS}
    if not (WORK / "classifier.safetensors").exists():
        classifier.save(classifier.train(*labelled(data["classifier"])), WORK / "classifier.safetensors")
    judge_classifier(data["held_out"])
    train.train(data["train"], WORK, WORK / "avatars.safetensors", options.steps or train.STEPS, options.seed)
    draw_loss(WORK / "loss.csv", WORK / "loss.png")
    if options.install:
        for name in SHIPPED:
            shutil.copy(WORK / name, DEMO / "model" / name)
    print(f"The model is in {WORK}. `python3 -m demo.evidence` measures the one in {DEMO / 'model'}.")


def labelled(path):
    """Images and, for each factor and style, its values."""
    with numpy.load(path) as arrays:
        names = [*(factor.name for factor in FACTORS), *render.STYLES]
        values = torch.from_numpy(numpy.concatenate((arrays["factors"], arrays["styles"]), axis=1)).long()
        return torch.from_numpy(arrays["images"]), dict(zip(names, values.T))


def judge_classifier(path):
    images, labels = labelled(path)
    _, probabilities = classifier.load(WORK / "classifier.safetensors").read(images)
    right = {name: float((probabilities[name].argmax(-1) == values).float().mean()) for name, values in labels.items()}
    print("The classifier on held-out avatars:", ", ".join(f"{name} {share:.1%}" for name, share in right.items()), flush=True)


def draw_loss(curve, path):
    step, loss = numpy.loadtxt(curve, delimiter=",", skiprows=1, usecols=(0, 1)).T
    figure = Figure((7, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    ax.plot(step, loss, color="#0072b2")
    ax.set(xlabel=f"step of {train.BATCH} images", ylabel="mean squared error of v", yscale="log")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main(SimpleNamespace(**json.loads(sys.argv[1])))
