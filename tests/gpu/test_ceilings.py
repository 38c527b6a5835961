"""What a circulated or measured call costs on a GPU beyond the plain one, at the sizes of real models, on fake CUDA tensors.

`python3 -m tests tests/gpu/test_ceilings.py -s` prints what it finds.
"""

import pytest
import torch
from support.host import engine
from support.rehearsal import Figures, Layer, rehearse

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
}

Circulation, Adaptive = engine("method.settings").CirculationSettings, engine("method.settings").AdaptiveSettings
PATHS = {
    "value space": dict(circulation=Circulation(1.05, 3.0)),
    "adaptive": dict(circulation=Circulation(1.2, 5.0, adaptive=Adaptive())),
    "probe": dict(probed="value space"),
    "input space": dict(circulation=Circulation(1.05, 3.0, "input space (paper)")),
}

# Kernels of the call (the plain one has 1); passes over q outside attention, which are bytes moved in bytes of q; and what is held at the
# peak beyond the plain call's own, in tensors of the size of q
CEILINGS = {
    ("SDXL 4096", "value space"): (30, 21.3, 9.0),
    ("SDXL 4096", "adaptive"): (54, 27.7, 9.0),
    ("SDXL 4096", "probe"): (53, 23.3, 4.3),
    ("SDXL 4096", "input space"): (187, 59.4, 3.6),
    ("SDXL 1024", "value space"): (30, 21.3, 9.0),
    ("SDXL 1024", "adaptive"): (54, 28.7, 9.0),
    ("SDXL 1024", "probe"): (53, 27.1, 5.1),
    ("SDXL 1024", "input space"): (357, 99.4, 3.3),
    ("SD1.5", "value space"): (30, 21.6, 9.0),
    ("SD1.5", "adaptive"): (54, 27.8, 9.0),
    ("SD1.5", "probe"): (53, 22.8, 4.1),
    ("SD1.5", "input space"): (153, 51.7, 3.8),
    ("Flux", "value space"): (39, 20.3, 7.6),
    ("Flux", "adaptive"): (56, 26.2, 7.6),
    ("Flux", "probe"): (53, 21.8, 3.1),
    ("Z-Image", "value space"): (39, 20.7, 7.8),
    ("Z-Image", "adaptive"): (56, 27.0, 7.8),
    ("Z-Image", "probe"): (53, 23.1, 3.3),
    ("Qwen-Image", "value space"): (56, 20.9, 3.9),
    ("Qwen-Image", "adaptive"): (74, 27.1, 3.9),
    ("Qwen-Image", "probe"): (53, 22.7, 3.2),
    ("Wan", "value space"): (537, 21.2, 1.2),
    ("Wan", "adaptive"): (883, 27.2, 1.2),
    ("Wan", "probe"): (447, 22.1, 0.3),
}


@pytest.mark.parametrize("name, path", CEILINGS)
def test_a_call_costs_no_more_than_its_ceiling(name, path):
    report, ceiling = rehearse(LAYERS[name], **PATHS[path], steps=2), Figures(*CEILINGS[name, path])
    found = report.figures[1]
    print(f"{name:10} {path:12} {found.kernels:4} kernels {found.passes:5.1f} passes {found.peak:5.1f} q   {dict(report.chosen)}")
    assert not report.faults
    over = {what: value for what, value in found._asdict().items() if value > getattr(ceiling, what)}
    assert not over, f"{over}, where the ceilings are {ceiling}"
