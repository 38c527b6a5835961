"""ComfyUI's own split of the prompts over several GPUs, each in a thread of its own: here over threads of the CPU."""

import threading

import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from support import transformers
from support.errors import change
from support.host import patch
from support.transformers import sample

if not hasattr(comfy.samplers, "_calc_cond_batch_multigpu"):
    pytest.skip("This ComfyUI does not split.", allow_module_level=True)

from comfy.multigpu import MultiGPUThreadPool

DEVICES = torch.device("cpu"), torch.device("cpu", 0)  # two keys for one device


@pytest.fixture
def pool():
    pool = MultiGPUThreadPool(list(DEVICES))
    yield pool
    pool.shutdown()


@pytest.mark.parametrize("name", ["sd3", "flux", "hidream"])  # blocks marked by us, named by ComfyUI, and counted
@pytest.mark.parametrize("inputs", [dict(), dict(branches="negative")], ids=str)
def test_what_is_split_over_devices_is_circulated_as_on_one(name, inputs, pool):
    models = [transformers.build(name) for _ in DEVICES]
    used = set()
    for each in models:
        each.pre_run()
        each.model.diffusion_model.register_forward_pre_hook(lambda *_: used.add(threading.get_ident()))

    def calc_cond_batch(executor, model, conds, x, timestep, options):
        return executor(model, conds, x, timestep, {**options, "multigpu_clones": dict(zip(DEVICES, models)), "multigpu_thread_pool": pool})

    split = models[0].clone()
    split.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "split", calc_cond_batch)
    settings = dict(alpha=1.5, beta=3.0, **inputs)
    result = sample(patch(split, **settings), name)
    assert len(used) == len(DEVICES)
    alone = sample(patch(models[0], **settings), name)
    assert change(result, alone) < 1e-6 < 1e-3 < change(alone, sample(models[0], name))
