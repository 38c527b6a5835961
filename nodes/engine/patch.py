"""How rules come to act on a MODEL: the only file that touches ComfyUI's ModelPatcher.

A node leaves two things on its clone of the model: the list of rules, and one wrapper around
sampling. All else is put in place when sampling starts, into the options that ComfyUI copies for
that one run, and is gone with them: after the run the model is as it was, however the run ended.
Starting late also puts us on top of whatever other nodes installed, before or after ours.
"""

from __future__ import annotations

import sys

import torch
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key

from . import families
from .attention import Call
from .rule import NEGATIVE, POSITIVE, Rule
from .run import Run

KEY = "circulation"


def add_rule(model, rule: Rule):
    """A clone of the MODEL with one more rule, which wins over the earlier ones."""
    patched = model.clone()
    patched.set_attachments(KEY, (*(model.get_attachment(KEY) or ()), rule))
    patched.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _sample)
    return patched


def _sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    guider = executor.class_obj
    model = guider.model_patcher
    run = Run(
        rules=model.get_attachment(KEY),
        blocks=families.blocks(model),
        # read here, not in the node: a ModelSampling node may come after ours
        model_sampling=model.get_model_object("model_sampling"),
        sigmas=sigmas,
        video=families.alternates_with_time(model),
    )
    if run.idle:
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    _install(run, guider)
    try:
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    finally:
        run.report()


def _install(run: Run, guider) -> None:
    options = guider.model_options["transformer_options"]  # ComfyUI's copy for this run
    previous = options.get("optimized_attention_override")

    def override(func, *args, **kwargs):
        return run.attention(Call(func, previous, args, kwargs))

    def self_attention(q_input, k_input, v_input, extra_options):
        address = (*extra_options["block"], extra_options["block_index"])
        run.announce(address, v_input, extra_options["cond_or_uncond"])
        return q_input, k_input, v_input

    def cross_attention(q_input, k_input, v_input, extra_options):
        run.announce(None, q_input, ())
        return q_input, k_input, v_input

    def calc_cond_batch(executor, model, conds, x, timestep, model_options):
        run.begin_batch(timestep, _branches(guider, conds))
        return executor(model, conds, x, timestep, model_options)

    patches = options.setdefault("patches", {})
    options["optimized_attention_override"] = _never_compiled(override)
    patches.setdefault("attn1_patch", []).append(_never_compiled(self_attention))
    patches.setdefault("attn2_patch", []).append(_never_compiled(cross_attention))
    add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, calc_cond_batch, options)


def _branches(guider, conds) -> tuple[str, ...]:
    """Which of `conds` is negative: guiders order them as they like, and context windows copy them."""
    negatives = {condition["uuid"] for condition in guider.original_conds.get("negative") or ()}
    found = [position for position, cond in enumerate(conds) if cond and cond[0]["uuid"] in negatives]
    where = found[0] if found else 1
    return tuple(NEGATIVE if position == where else POSITIVE for position in range(len(conds)))


def _never_compiled(function):
    """Values read inside a compiled attention are frozen at their first value, so stay outside."""
    # Importing dynamo takes seconds; where nobody has, nothing is compiled.
    return torch.compiler.disable(function) if "torch._dynamo" in sys.modules else function
