"""A small network that reads an avatar's factors off its picture. Its last layer but one is the feature space of the evidence.

It is trained on avatars that neither the model nor the reference of the evidence has seen.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = 128
EPOCHS = 12
BATCH = 128


class Classifier(nn.Module):
    """`heads` maps each factor or style to its number of values."""

    def __init__(self, heads: dict[str, int]):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
            nn.Conv2d(48, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Conv2d(64, 96, 3, padding=1, stride=2), nn.BatchNorm2d(96), nn.ReLU(),
            nn.Conv2d(96, 96, 3, padding=1), nn.BatchNorm2d(96), nn.ReLU(),
            nn.Conv2d(96, 128, 3, padding=1, stride=2), nn.BatchNorm2d(128), nn.ReLU(),
            nn.Flatten(), nn.Linear(128 * 16, FEATURES), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.ModuleDict({name: nn.Linear(FEATURES, count) for name, count in heads.items()})

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features (N, 128) and, for each head, logits (N, values) of images (N, 16, 16, 3) in 0 … 1."""
        features = self.body(images.permute(0, 3, 1, 2) * 2 - 1)
        return features, {name: head(features) for name, head in self.heads.items()}

    @torch.inference_mode()
    def read(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features and, for each head, probabilities, of images (N, 16, 16, 3) uint8."""
        self.eval()
        parts = [self(part.float() / 255) for part in images.split(512)]
        features = torch.cat([f for f, _ in parts])
        return features, {name: torch.cat([logits[name].softmax(-1) for _, logits in parts]) for name in self.heads}


def save(classifier: Classifier, path: Path) -> None:
    heads = {name: head.out_features for name, head in classifier.heads.items()}
    weights = {key: value.half() if value.is_floating_point() else value for key, value in classifier.state_dict().items()}
    save_file(weights, path, {"heads": json.dumps(heads)})


def load(path: Path) -> Classifier:
    with safe_open(path, "pt") as file:
        classifier = Classifier(json.loads(file.metadata()["heads"]))
        classifier.load_state_dict({key: file.get_tensor(key) for key in file.keys()})
    return classifier.eval().requires_grad_(False)


def train(images: Tensor, labels: dict[str, Tensor], epochs: int = EPOCHS, batch: int = BATCH, seed: int = 0) -> Classifier:
    """`images` (N, 16, 16, 3) uint8, `labels` of each head (N,)."""
    torch.manual_seed(seed)
    classifier = Classifier({name: int(values.max()) + 1 for name, values in labels.items()}).train()
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.AdamW(classifier.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for picked in order[: len(order) // batch * batch].split(batch):
            with torch.autocast("cpu", torch.bfloat16):
                _, logits = classifier(images[picked].float() / 255)
            loss = sum(F.cross_entropy(logits[name].float(), values[picked]) for name, values in labels.items())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"classifier: epoch {epoch + 1}/{epochs}, loss {loss.item():.3f}", flush=True)
    return classifier
