"""Training of the model in the box, a few steps of it."""

import pytest
import torch
from support.host import ROOT

import comfy.ldm.modules.attention as attention
from circulation_demo.avatars import loader
from circulation_demo.train import train

DATA = ROOT / "demo" / "model" / "train.npz"
STEPS = 4


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(train, "BATCH", 2)
    for name in ("optimized_attention", "optimized_attention_masked"):  # which training replaces
        monkeypatch.setattr(attention, name, getattr(attention, name))


def weights(folder):
    state = torch.load(folder / "training.pt", weights_only=True)
    assert state["done"] == STEPS
    return state["trainee"]


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch, after):
    straight, interrupted = tmp_path / "straight", tmp_path / "interrupted"
    straight.mkdir(), interrupted.mkdir()
    train.train(DATA, straight, straight / "out.safetensors", STEPS)
    monkeypatch.setattr(train, "SAVED_EVERY", 1)
    learn = train.Lessons.loss

    def stop(lessons, trainee, step):
        if step == after:
            raise KeyboardInterrupt
        return learn(lessons, trainee, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.Lessons, "loss", stop)
        train.train(DATA, interrupted, interrupted / "out.safetensors", STEPS)
    train.train(DATA, interrupted, interrupted / "out.safetensors", STEPS)
    expected = weights(straight)
    for name, weight in weights(interrupted).items():
        assert torch.equal(weight, expected[name]), name
    assert loader.load(straight / "out.safetensors")


def test_a_step_moves_every_weight():
    """Muon has views of the convolutions and of their gradients."""
    trainee = train.Trainee()
    for weight in trainee.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    before = {name: weight.detach().clone() for name, weight in trainee.named_parameters()}
    muon, adamw = train.optimizers(trainee)
    unet = trainee.unet
    ends = {unet.input_blocks[0][0].weight, unet.out[2].weight, *(table.weight for table in trainee.embedding)}
    assert ends <= set(adamw.param_groups[0]["params"])
    train.Lessons(DATA, 0, trainee, torch.device("cpu")).loss(trainee, 0).backward()
    muon.step(), adamw.step()
    assert not [name for name, weight in trainee.named_parameters() if torch.equal(weight, before[name])]
