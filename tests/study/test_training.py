"""Training of the model in the box, a few steps of it."""

import contextlib

import comfy.ldm.modules.attention as attention
import numpy
import pytest
import torch
from circulation_demo.avatars import loader
from circulation_demo.train import train
from support.host import ROOT
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

STEPS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few of the avatars."""
    path = tmp_path_factory.mktemp("data") / "train.npz"
    with numpy.load(ROOT / "demo" / "model" / "train.npz") as arrays:
        numpy.savez(path, **{key: values[:64] for key, values in arrays.items()})
    return path


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(train, "BATCH", 2)
    for name in ("optimized_attention", "optimized_attention_masked"):  # which training replaces
        monkeypatch.setattr(attention, name, getattr(attention, name))


@pytest.fixture
def steps_taken(monkeypatch):
    """The numbers of the steps that were taken, but for the one that tells what the code does."""
    taken, take, conditions = [], train.Training.step, train.conditions

    def counted(training, step):
        taken.append(step)
        return take(training, step)

    monkeypatch.setattr(train.Training, "step", counted)

    def unheard(*arguments):
        before = len(taken)
        result = conditions(*arguments)
        del taken[before:]
        return result

    monkeypatch.setattr(train, "conditions", unheard)
    return taken


def weights(folder):
    state = torch.load(folder / "training.pt", weights_only=True)
    assert state["done"] == STEPS
    return state["trainee"]


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_training_goes_on_to_the_same_weights(data, tmp_path, monkeypatch, after):
    straight = train.train(data, tmp_path / "straight", STEPS)
    monkeypatch.setattr(train, "SAVED_EVERY", 1)
    learn = train.Lessons.loss

    def stop(lessons, trainee, step):
        if step == after:
            raise KeyboardInterrupt
        return learn(lessons, trainee, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.Lessons, "loss", stop)
        train.train(data, tmp_path / "interrupted", STEPS)
    interrupted = train.train(data, tmp_path / "interrupted", STEPS)
    assert len(list((tmp_path / "interrupted").iterdir())) == 1
    assert [row.partition(",")[0] for row in (interrupted / "loss.csv").read_text().split()[2:]] == ["1", "2", "3"]
    expected = weights(straight)
    for name, weight in weights(interrupted).items():
        assert torch.equal(weight, expected[name]), name
    assert loader.load(straight / "avatars.safetensors")


def change_the_schedule(monkeypatch):
    monkeypatch.setattr(train, "AVERAGE", 0.99)


def change_the_network(monkeypatch):
    build = train.unet.build

    def other(dtype):
        model = build(dtype)
        model.diffusion_model.out[0].eps *= 2
        return model

    monkeypatch.setattr(train.unet, "build", other)


def change_the_attention(monkeypatch):
    monkeypatch.setattr(train, "plain_attention", lambda q, k, v, heads, *args, **kwargs: q)


@pytest.mark.parametrize("change", [change_the_schedule, change_the_network, change_the_attention])
def test_a_finished_training_is_not_taken_for_another(data, tmp_path, monkeypatch, steps_taken, change):
    finished = train.train(data, tmp_path, STEPS)
    assert train.train(data, tmp_path, STEPS) == finished and steps_taken == list(range(STEPS))
    change(monkeypatch)
    assert train.train(data, tmp_path, STEPS) != finished and steps_taken == 2 * list(range(STEPS))


def test_a_step_moves_every_weight(data):
    """Muon has views of the convolutions and of their gradients."""
    trainee = train.Trainee()
    for weight in trainee.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    before = {name: weight.detach().clone() for name, weight in trainee.named_parameters()}
    muon, adamw = train.optimizers(trainee)
    unet = trainee.unet
    ends = {unet.input_blocks[0][0].weight, unet.out[2].weight, *(table.weight for table in trainee.embedding)}
    assert ends <= set(adamw.param_groups[0]["params"])
    train.Lessons(data, 0, trainee, torch.device("cpu")).loss(trainee, 0).backward()
    assert not [name for name, weight in trainee.named_parameters() if not weight.grad.any()], "no gradient"
    muon.step(), adamw.step()
    assert not [name for name, weight in trainee.named_parameters() if torch.equal(weight, before[name])]


def test_a_cpu_without_bfloat16_does_nothing_in_it(data, monkeypatch):
    """Also not in Muon, whose step is that of float64."""

    def moved():
        training = train.Training(data, STEPS, 0, torch.device("cpu"))
        for weight in training.trainee.parameters():  # zeros at the ends would leave Muon nothing to do
            torch.nn.init.normal_(weight, std=0.02, generator=torch.Generator().manual_seed(weight.numel()))
        before = [weight.detach().clone() for weight in training.trainee.parameters()]
        training.step(0)
        return [weight.detach() - old for weight, old in zip(training.trainee.parameters(), before)]

    monkeypatch.setattr(train, "has_bfloat16", lambda device: False)
    with NoBfloat16():
        exact = moved()
    monkeypatch.setattr(train, "Float32", contextlib.nullcontext)
    with pytest.raises(AssertionError), NoBfloat16():
        moved()
    monkeypatch.setattr(train, "Float32", Float64)
    for one, other in zip(exact, moved()):
        assert torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.999


class Float64(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return args[0].double() if function is torch.Tensor.bfloat16 else function(*args, **(kwargs or {}))


class NoBfloat16(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        assert not (isinstance(result, torch.Tensor) and result.dtype == torch.bfloat16), function
        return result
