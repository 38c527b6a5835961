"""The model in the box: its words, its VAE, its loader, and images from the real server."""

import logging
from types import SimpleNamespace

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.host import ROOT, patch
from support.server import COMFY, demo

import comfy.sample
import comfy.sd
from circulation_demo import graph, run
from circulation_demo.avatars import factors, loader, vae
from circulation_demo.avatars.text import FactorEncoder

chosen = st.fixed_dictionaries({}, optional={f.name: st.sampled_from(f.words) for f in factors.FACTORS})


@given(chosen)
def test_a_caption_means_what_it_was_made_of(values):
    assert factors.parse(factors.caption(values)) == (values, [])


@pytest.mark.parametrize(
    ("prompt", "meant"),
    [
        ("a person with short brown hair and red clothes", {"hair length": "short", "hair colour": "brown", "clothes": "red"}),
        ("Glasses, HAT", {"glasses": "clear", "hat": "any"}),
        ("dark skin, dark glasses", {"skin": "dark", "glasses": "dark"}),
        ("no beard; smiling. pink background", {"beard": "no", "mouth": "smiling", "background": "pink"}),
        ("", {}),
    ],
)
def test_prompts_in_a_persons_words(prompt, meant):
    assert factors.parse(prompt) == (meant, [])


def test_what_the_model_does_not_know_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        encoder = FactorEncoder([torch.zeros(1 + len(factor.values), 64) for factor in factors.FACTORS])
        codes = encoder.tokenize("purple hair, riding a dragon, smiling")
    assert codes == factors.codes({"mouth": "smiling"})
    assert "does not know: purple, riding, dragon. It knows: white background" in caplog.text


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 1.0, 2.0]), st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3))
def test_the_vae_keeps_every_pixel(seed, scale, centre):
    colours = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(seed))
    picture = colours.repeat_interleave(8, 1).repeat_interleave(8, 2)
    autoencoder = comfy.sd.VAE(sd=vae.state_dict(scale, centre))
    with torch.inference_mode():
        latent = autoencoder.encode(picture)
        decoded = autoencoder.decode(latent)
    assert latent.shape == (2, 4, 16, 16)
    assert (decoded - picture).abs().max() < 1 / 255
    z = latent * 0.18215  # what the sampler sees: the colours, seen from the centre and stretched
    assert torch.allclose(z[:, :3], ((colours * 2 - 1 - torch.tensor(centre)) * scale).permute(0, 3, 1, 2), atol=1e-4 * scale)


@pytest.fixture(scope="module")
def avatar_model():
    return loader.load()


def sample(model, text, prompts, seeds, steps=4):
    noise = torch.cat([comfy.sample.prepare_noise(torch.zeros(1, 4, 16, 16), seed) for seed in seeds])
    positive = [[text.encode([text.tokenize(prompt) for prompt in prompts]), {}]]
    negative = text.encode_from_tokens_scheduled(text.tokenize(""))
    with torch.inference_mode():
        latent = torch.zeros_like(noise)
        return comfy.sample.sample(model, noise, steps, 2.0, "euler", "karras", positive, negative, latent, disable_pbar=True, seed=0)


def test_an_image_is_the_same_in_any_batch(avatar_model):
    model, text, _ = avatar_model
    prompts = ["pink background, smiling", "long teal hair", "hat"]
    together = sample(model, text, prompts, [1, 2, 3])
    alone = torch.cat([sample(model, text, [prompt], [seed]) for prompt, seed in zip(prompts, [1, 2, 3])])
    assert torch.allclose(together, alone, atol=1e-3)
    assert torch.equal(together, sample(model, text, prompts, [1, 2, 3]))


@pytest.mark.parametrize("alpha", [None, 1.2])
def test_images_are_the_same_in_every_version_of_comfyui(avatar_model, alpha):
    """To one grey level. `golden/avatars.npz` was made with ComfyUI 0.3.75."""
    model, text, autoencoder = avatar_model
    if alpha:
        model = patch(model, alpha=alpha, beta=5.0)
    latents = sample(model, text, graph.PROMPTS, [11, 12, 13, 14], steps=12)
    with torch.inference_mode():
        pictures = (autoencoder.decode(latents)[:, 4::8, 4::8] * 255).clamp(0, 255).numpy()
    with numpy.load(ROOT / "tests" / "golden" / "avatars.npz") as golden:
        assert numpy.abs(pictures - golden[str(alpha)]).max() <= 1.5  # half a level is rounding


def test_an_empty_latent_is_the_average_colour(avatar_model):
    with numpy.load(ROOT / "demo" / "model" / "train.npz") as data, torch.inference_mode():
        average = torch.from_numpy(data["images"].mean(axis=(0, 1, 2)) / 255).float()
        decoded = avatar_model[2].decode(torch.zeros(1, 4, 16, 16))
    assert (decoded - average).abs().max() < 1 / 255


def test_the_model_knows_avatars_in_noise(avatar_model):
    """As the sampler shows them: by the VAE's latents, whose centre is that of the model's sampling."""
    model, text, autoencoder = avatar_model
    with numpy.load(ROOT / "demo" / "model" / "held_out.npz") as data:
        pictures = torch.from_numpy(data["images"][:32]).float().repeat_interleave(8, 1).repeat_interleave(8, 2) / 255
        prompts = (data["factors"][:32].astype(int) + 1).tolist()
    with torch.inference_mode():
        clean = model.model.process_latent_in(autoencoder.encode(pictures))
        noisy = clean + 2 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        found = model.model.apply_model(noisy, torch.full((32,), 2.0), c_crossattn=text.encode(prompts))
    assert (found - clean).square().mean() < 0.04


def test_prompts_are_followed(avatar_model):
    """Of the background's colour one can be sure at a glance."""
    model, text, autoencoder = avatar_model
    words = factors.COLOURS["background"]
    latents = sample(model, text, [f"{word} background" for word in words], [1] * len(words))
    with torch.inference_mode():
        corners = (autoencoder.decode(latents)[:, 4, 4] * 255).tolist()
    wanted = [[int(colour[i : i + 2], 16) for i in (0, 2, 4)] for colour in words.values()]
    nearest = [min(range(len(wanted)), key=lambda w: sum(abs(a - b) for a, b in zip(wanted[w], corner))) for corner in corners]
    assert nearest == list(range(len(wanted)))


def test_the_demo_ends_with_a_sheet_a_table_and_the_stability_of_each_setting(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "OUTPUT", tmp_path / "output")
    prompts = graph.PROMPTS[:2]
    with demo.Server(COMFY, tmp_path, packs=[ROOT / "demo" / "circulation_demo" / "avatars"]) as server:
        run.compare(server, SimpleNamespace(prompt=prompts, seed=1, steps=3, beta=5.0))
    labels = ["off", *(f"alpha {alpha}, beta 5" for alpha in ("0.9", "1.05", "1.2"))]
    printed = capsys.readouterr().out
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == [f"| {labels[0]} (baseline)", *(f"| {label}" for label in labels[1:])]
    assert all(float(row[3].split()[0]) > 0 for row in rows[1:])  # mean change
    energies = [row[6] for row in rows]
    assert len(set(energies)) == len(energies)
    for number, prompt in enumerate(prompts):
        assert f"Columns {2 * number + 1} to {2 * number + 2} of the sheet: {prompt}" in printed
    written = {path.stem: Image.open(path) for path in (tmp_path / "output").iterdir()}
    assert {*written} == {"sheet", "curve", *(f"stability, {label}" for label in labels)}
    assert written["sheet"].width > 4 * 128 and written["sheet"].height > 4 * 128
    assert all(picture.width == 1024 for name, picture in written.items() if name != "sheet")
