"""Stable Video Diffusion: its attentions over time run under the same addresses as those over the image."""

import pytest
import torch
from support import dense
from support.errors import change
from support.host import engine, patch
from support.models import build, conditioning
from support.sampling import sample
from support.watch import record


def video(model, frames, seed=0, **kwargs):
    def prompt(seed):
        return conditioning(
            "svd",
            seed,
            tokens=1,
            concat_latent_image=torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(9)),
            motion_bucket_id=127,
            fps=6,
            augmentation_level=0.0,
        )

    return sample(model, "svd", batch=frames, positive=prompt(1), negative=prompt(2), seed=seed, **kwargs)


@pytest.mark.parametrize("frames", [3, 16])  # 16 frames of 4×4 tokens at the deepest level: alike in shape
def test_attention_over_the_image_is_affected_and_over_time_is_not(frames, monkeypatch):
    monkeypatch.setattr(engine("method.fast.chunks"), "MAX_ELEMENTS_CPU", 2**40)  # one call of ours, not one for some heads each
    model, calls = record(build("svd"))
    ours = video(patch(model, alpha=1.5), frames, steps=1)
    spatial = [call for call in calls if call.doubled]
    assert [c.block for c in spatial] == list(dict.fromkeys(c.block for c in calls if c.block))
    assert {call.shape[0] for call in spatial} == {2 * frames}

    turns = []

    def only(block):
        turns.append(None)
        return len(turns) % 2 == 1

    truth = video(dense.written_out(model, 1.5, 3, only=only), frames, steps=1)
    assert change(ours, truth) < 1e-4 < 1e-2 < change(ours, video(model, frames, steps=1))
