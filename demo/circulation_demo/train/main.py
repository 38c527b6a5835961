"""Draw, train, judge. `python3 -m demo.train` starts this file in the environment it has prepared, with its options as JSON."""

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .. import DEMO, ROOT
from ..avatars.factors import FACTORS
from ..digest import digest, one_thread
from ..evidence import classifier
from ..inprocess import args
from . import render

args.cpu = not torch.cuda.is_available()

from . import train

WORK = ROOT / ".comfy" / "train"


def main(options):
    torch.set_num_threads(options.threads or os.cpu_count())
    WORK.mkdir(parents=True, exist_ok=True)
    if options.output:
        return train_another(options)
    data = {split: render.render(split, WORK) for split in render.SPLITS}
    judge = train_classifier(data["classifier"])
    judge_classifier(judge, data["held_out"])
    training = train.train(data["train"], WORK, options.steps or train.STEPS, options.seed)
    draw_loss(training / "loss.csv", training / "loss.png")
    if options.install:
        for name in ("avatars.safetensors", "loss.csv", "loss.png"):
            shutil.copy(training / name, DEMO / "model" / name)
        for name, path in {"classifier": judge, "train": data["train"], "held_out": data["held_out"]}.items():
            shutil.copy(path, DEMO / "model" / (name + path.suffix))
    print(f"The model is in {training}. `python3 -m demo.evidence` measures the one in {DEMO / 'model'}.")


def train_another(options):
    """A model on the avatars in the box, into a file of its own; its loss stands beside it."""
    training = train.train(DEMO / "model" / "train.npz", WORK, options.steps or train.STEPS, options.seed)
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(training / "loss.csv", output.with_suffix(".csv"))
    shutil.copy(training / "avatars.safetensors", output)


def labelled(path):
    """Images and, for each factor and style, its values."""
    with numpy.load(path) as arrays:
        names = [*(factor.name for factor in FACTORS), *render.STYLES]
        values = torch.from_numpy(numpy.concatenate((arrays["factors"], arrays["styles"]), axis=1)).long()
        return torch.from_numpy(arrays["images"]), dict(zip(names, values.T))


def train_classifier(data: Path) -> Path:
    """The file of a classifier trained on these avatars. It is trained once for the same data, PyTorch, and weights after two steps."""
    images, labels = labelled(data)
    few = slice(2 * classifier.BATCH)
    with one_thread():
        start = classifier.train(images[few], {name: values[few] for name, values in labels.items()}, epochs=1)
    path = WORK / f"classifier-{digest(data, classifier.EPOCHS, torch.__version__, *start.state_dict().values())}.safetensors"
    if not path.exists():
        classifier.save(classifier.train(images, labels), path)
    return path


def judge_classifier(path: Path, held_out: Path):
    images, labels = labelled(held_out)
    _, probabilities = classifier.load(path).read(images)
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
