"""What a circulated or measured call costs on a GPU beyond the plain one, at the sizes of real models, on fake CUDA tensors.

`python3 -m tests tests/gpu/test_ceilings.py -s` prints what it finds.
"""

from importlib.util import find_spec

import pytest
import torch
from support.host import engine
from support.rehearsal import A100, H100, OLDER_COMFYUI, Figures, Layer, rehearse

if not torch.backends.cuda.is_built():
    pytest.skip("This torch is built without CUDA.", allow_module_level=True)

BF16 = torch.bfloat16
LAYERS = {
    "SDXL 4096": Layer(2, 4096, 10, 64),  # 1024², by its tokens
    "SDXL 1024": Layer(2, 1024, 20, 64),
    "SD1.5": Layer(2, 4096, 8, 40),  # 512²
    "Flux": Layer(1, 4608, 24, 128, BF16, text=512, in_heads=True),  # 1024²
    "Z-Image": Layer(1, 4352, 30, 128, BF16, text=256, in_heads=True),  # 1024²
    "Qwen-Image": Layer(1, 7145, 24, 128, BF16, text=256, in_heads=True),  # 1328²
    "Wan": Layer(1, 75600, 40, 128, BF16),  # 14B, 720p, 81 frames
    "MiniMax H3": Layer(1, 37966, 56, 128, BF16, text=670, in_heads=True),  # 768p, 124 frames; before them the text and the sound
}

Circulation, Adaptive = engine("method.settings").CirculationSettings, engine("method.settings").AdaptiveSettings
PATHS = {
    "value space": dict(circulation=Circulation(1.05, 3.0)),
    "one pass": dict(circulation=Circulation(1.05, 3.0, method="one pass")),
    "adaptive": dict(circulation=Circulation(1.2, 5.0, adaptive=Adaptive())),
    "probe": dict(probed="value space"),
    "input space": dict(circulation=Circulation(1.05, 3.0, "input space (paper)")),
    "probe of X": dict(probed="input space (paper)"),
}

# Kernels of the call (the plain one has 1); passes over q outside attention, which are bytes moved in bytes of q; and what is held at the
# peak beyond the plain call's own, in tensors of the size of q
CEILINGS = {
    (A100, "SDXL 4096", "value space"): (27, 17.3, 4.0),
    (A100, "SDXL 4096", "one pass"): (12, 6.0, 3.0),
    (A100, "SDXL 4096", "adaptive"): (50, 23.7, 4.0),
    (A100, "SDXL 4096", "probe"): (53, 23.3, 4.3),
    (A100, "SDXL 4096", "input space"): (185, 57.4, 3.4),
    (A100, "SDXL 4096", "probe of X"): (361, 140.2, 3.4),
    (A100, "SDXL 1024", "value space"): (27, 17.3, 4.0),
    (A100, "SDXL 1024", "one pass"): (12, 6.0, 3.0),
    (A100, "SDXL 1024", "adaptive"): (50, 24.7, 4.0),
    (A100, "SDXL 1024", "probe"): (53, 27.1, 5.1),
    (A100, "SDXL 1024", "input space"): (355, 97.4, 3.2),
    (A100, "SD1.5", "value space"): (27, 17.6, 4.0),
    (A100, "SD1.5", "one pass"): (12, 6.0, 3.0),
    (A100, "SD1.5", "adaptive"): (50, 23.8, 4.0),
    (A100, "SD1.5", "probe"): (53, 22.8, 4.1),
    (A100, "SD1.5", "input space"): (151, 49.7, 3.5),
    (A100, "Flux", "value space"): (91, 22.5, 1.9),
    (A100, "Flux", "one pass"): (53, 11.7, 0.9),
    (A100, "Flux", "adaptive"): (111, 28.5, 1.9),
    (A100, "Flux", "probe"): (53, 21.8, 3.1),
    (A100, "Z-Image", "value space"): (109, 23.3, 1.6),
    (A100, "Z-Image", "one pass"): (63, 11.9, 0.6),
    (A100, "Z-Image", "adaptive"): (130, 29.6, 1.6),
    (A100, "Z-Image", "probe"): (53, 23.1, 3.3),
    (A100, "Qwen-Image", "value space"): (127, 23.7, 1.3),
    (A100, "Qwen-Image", "one pass"): (73, 11.9, 0.3),
    (A100, "Qwen-Image", "adaptive"): (149, 29.9, 1.3),
    (A100, "Qwen-Image", "probe"): (53, 22.7, 3.2),
    (A100, "Wan", "value space"): (618, 21.2, 1.2),
    (A100, "Wan", "one pass"): (248, 11.0, 0.2),
    (A100, "Wan", "adaptive"): (924, 27.2, 1.2),
    (A100, "Wan", "probe"): (447, 22.1, 0.3),
    (A100, "MiniMax H3", "value space"): (1052, 24.1, 0.2),
    (A100, "MiniMax H3", "one pass"): (573, 12.1, -0.9),
    (A100, "MiniMax H3", "adaptive"): (1194, 30.1, 0.2),
    (A100, "MiniMax H3", "probe"): (268, 21.9, 0.0),
    (H100, "Flux", "value space"): (53, 19.5, 2.4),
    (H100, "Flux", "one pass"): (31, 8.7, 1.3),
    (H100, "Wan", "value space"): (578, 18.2, 1.1),
    (H100, "Wan", "one pass"): (208, 8.0, 0.1),
    (OLDER_COMFYUI, "SDXL 4096", "value space"): (43, 21.4, 4.5),
    (OLDER_COMFYUI, "SDXL 4096", "one pass"): (20, 11.0, 3.5),
    (OLDER_COMFYUI, "SDXL 1024", "value space"): (29, 22.3, 7.0),
    (OLDER_COMFYUI, "SDXL 1024", "one pass"): (14, 11.0, 6.0),
    (OLDER_COMFYUI, "SD1.5", "value space"): (29, 22.6, 7.0),
    (OLDER_COMFYUI, "SD1.5", "one pass"): (14, 11.0, 6.0),
}


@pytest.mark.parametrize("card, name, path", CEILINGS, ids=str)
def test_a_call_costs_no_more_than_its_ceiling(card, name, path):
    report, ceiling = rehearse(LAYERS[name], **PATHS[path], card=card, steps=2), Figures(*CEILINGS[card, name, path])
    found, kernels = report.figures[1], dict(report.chosen)
    print(f"{card!s:13} {name:10} {path:12} {found} {kernels}")
    assert not report.faults
    over = {what: value for what, value in found._asdict().items() if value > getattr(ceiling, what)}
    assert not over, f"{over}, where the ceilings are {ceiling}"


# The fused kernel: its own launch, and the check that the result is finite
FUSED = {"SDXL 4096": (9, 1.0, 0.0), "SD1.5": (9, 1.0, 0.0), "Flux": (12, 0.0, 0.0), "Qwen-Image": (12, 0.0, 0.0), "Wan": (9, 1.0, 0.0)}


@pytest.mark.parametrize("name", FUSED)
def test_one_pass_by_the_fused_kernel_costs_next_to_nothing_else(name, monkeypatch):
    if find_spec("triton") is None:
        pytest.skip("There is no Triton here.")
    monkeypatch.setenv("CIRCULATION_FUSED", "1")
    report, ceiling = rehearse(LAYERS[name], **PATHS["one pass"], steps=2), Figures(*FUSED[name])
    found = report.figures[1]
    print(f"{name:10} fused {found.kernels:4} kernels {found.passes:5.1f} passes {found.peak:5.1f} q   {dict(report.chosen)}")
    assert not report.faults
    over = {what: value for what, value in found._asdict().items() if value > getattr(ceiling, what)}
    assert not over, f"{over}, where the ceilings are {ceiling}"


@pytest.mark.parametrize("circulation", ["value space", "adaptive"])
def test_a_blend_is_not_fused(circulation, monkeypatch):
    monkeypatch.setenv("CIRCULATION_FUSED", "1")
    report = rehearse(LAYERS["SDXL 4096"], **PATHS[circulation], steps=1)
    assert sum(report.chosen.values()) >= 2 and not report.faults


@pytest.mark.parametrize("path", ["value space", "adaptive"])
def test_the_change_of_attention_takes_three_passes_over_the_output(path, monkeypatch):
    """Difference, its length and that of the model's own: 3 kernels over 5 tensors of q, and one more for a number an image."""
    measured = rehearse(LAYERS["SDXL 4096"], **PATHS[path], steps=2)
    monkeypatch.setattr(engine("run.run").Run, "_measure_change", lambda *args: None)
    without = rehearse(LAYERS["SDXL 4096"], **PATHS[path], steps=2)
    more = [one - other for one, other in zip(measured.figures[1], without.figures[1])]
    assert more == pytest.approx([4, 5.0, 0.0], abs=0.05) and not measured.faults


def test_one_pass_is_not_measured_again_after_its_first_evaluation():
    kernels = [figures.kernels for figures in rehearse(LAYERS["SDXL 4096"], **PATHS["one pass"], steps=2).figures]
    assert kernels == [CEILINGS[A100, "SDXL 4096", "one pass"][0]] * 2
