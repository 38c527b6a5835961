"""How rules and probes come to act on a MODEL: the only file that touches ComfyUI's ModelPatcher.

A node leaves two things on its clone of the model: a list of rules and probes, and one wrapper around
sampling. All else is put in place when sampling starts, into the options that ComfyUI copies for
that one run, and is gone with them: after the run the model is as it was, however the run ended.
Starting late also puts us on top of whatever other nodes installed, before or after ours.
"""

import inspect
import sys
from collections.abc import Callable, Sequence

import torch
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch.nn import Module

from ..choices import NEGATIVE, POSITIVE
from ..families.forward import Forward, Mark
from ..families.transformer import TransformerFamily
from ..families.unet import alternates_with_time
from ..rules.plan import Plan
from ..rules.rule import Rule
from ..run.observer import Observer, Probe
from ..run.run import Run
from . import events, keys
from .attention_call import AttentionCall
from .model import diffusion_model, family_of, patchable_blocks
from .run_info import run_info


def attach(model, addition: Rule | Probe):
    """A clone of the MODEL with one more rule, which wins over the earlier ones, or one more probe."""
    patched = model.clone()
    patched.set_attachments(keys.ATTACHMENT, (*(model.get_attachment(keys.ATTACHMENT) or ()), addition))
    patched.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, keys.WRAPPER)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, keys.WRAPPER, _sample)
    return patched


def _sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    guider = executor.class_obj
    model = guider.model_patcher
    additions = model.get_attachment(keys.ATTACHMENT)
    schedule = tuple(sigmas.tolist())
    blocks = patchable_blocks(model)
    run = Run(
        # the model's sampling is read here, not in the node: a ModelSampling node may come after ours
        plan=Plan([a for a in additions if isinstance(a, Rule)], model.get_model_object("model_sampling").percent_to_sigma, blocks),
        observers=[Observer(a, schedule) for a in additions if isinstance(a, Probe)],
        blocks=blocks,
        sigmas=schedule,
        video=alternates_with_time(diffusion_model(model)),
    )
    if run.idle:
        _send_statuses(run)
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    _install(run, guider)
    complete = False
    try:
        out = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        complete = True
        return out
    finally:
        run.outcome.report()
        _send_statuses(run, complete)
        for observer in run.observers:
            observer.finish(run_info(run, observer, guider, sampler, schedule, _seed(*args, **kwargs), complete))


def _seed(denoise_mask=None, callback=None, disable_pbar=False, seed=None, *args, **kwargs) -> int | None:
    """Of the further arguments of OUTER_SAMPLE."""
    return seed if isinstance(seed, int) else None


def _send_statuses(run: Run, complete: bool = True) -> None:
    for node, line in run.outcome.statuses():
        events.send(events.STATUS, node, {"text": line if complete else f"Stopped early. {line}"})


def _install(run: Run, guider) -> None:
    options = guider.model_options[keys.TRANSFORMER_OPTIONS]  # ComfyUI's copy for this run
    previous = options.get(keys.ATTENTION_OVERRIDE)
    family, network = family_of(guider.model_patcher), diffusion_model(guider.model_patcher)
    announce = _follow_transformer(run, options, family, network) if isinstance(family, TransformerFamily) else None
    if announce is None:
        _mark_unet(run, options)

    def override(func, *args, **kwargs):
        call = AttentionCall(func, previous, args, kwargs)
        if announce is not None:
            announce(call)
        return run.attention(call)

    def predict_noise(executor, x, timestep, *args, **kwargs):
        run.begin_evaluation(timestep)
        return executor(x, timestep, *args, **kwargs)

    def calc_cond_batch(executor, model, conds, x, timestep, model_options):
        run.begin_pass(timestep, _branches(guider, conds))
        out = executor(model, conds, x, timestep, model_options)
        run.end_pass()
        return out

    def apply_model(executor, *args, **kwargs):
        # Compiled code is not asked again whether transformer_options differ, only what the model is
        # called with: a new argument keeps it from taking the code compiled for the model without us.
        return executor(*args, **{keys.COMPILE_ARGUMENT: True}, **kwargs)

    options[keys.ATTENTION_OVERRIDE] = _never_compiled(override)
    add_wrapper_with_key(WrappersMP.PREDICT_NOISE, keys.WRAPPER, predict_noise, options)
    add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, keys.WRAPPER, calc_cond_batch, options)
    if keys.COMPILE_OPTIONS in guider.model_options and _takes_any_argument(network.forward):
        add_wrapper_with_key(WrappersMP.APPLY_MODEL, keys.WRAPPER, apply_model, options)


def _takes_any_argument(function: Callable) -> bool:
    """HiDream's does not: compiled and run without us, it has to be compiled anew to be circulated."""
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(function).parameters.values())


def _mark_unet(run: Run, options: dict) -> None:
    """UNets have patches in front of their attentions, which announce them."""

    def self_attention(q_input, k_input, v_input, extra_options):
        address = (*extra_options[keys.UNET_BLOCK], extra_options[keys.BLOCK_INDEX])
        run.announce(address, v_input.device, extra_options[keys.CONDITIONS], extra_options[keys.PROMPTS], x=v_input)
        return q_input, k_input, v_input

    def cross_attention(q_input, k_input, v_input, extra_options):
        run.announce(None, q_input.device)
        return q_input, k_input, v_input

    patches = options.setdefault(keys.PATCHES, {})
    patches.setdefault(keys.SELF_ATTENTION_PATCH, []).append(_never_compiled(self_attention))
    patches.setdefault(keys.CROSS_ATTENTION_PATCH, []).append(_never_compiled(cross_attention))


def _follow_transformer(run: Run, options: dict, family: TransformerFamily, network: Module) -> Callable[[AttentionCall], None]:
    """Transformers are followed through each call of the model. Returns what announces an attention call."""
    address_of_call = family.address_of_call(network)

    def apply_model(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **conditions):  # noqa: B006
        forward = Forward(family, network, address_of_call, x.shape, conditions)
        followed = {**transformer_options, keys.FORWARD: forward}
        out = executor(x, t, c_concat, c_crossattn, control, followed, **conditions)
        if forward.miscounted:
            run.distrust()
        return out

    def mark(kind: str, index: int):
        slot = keys.SLOT.format(kind), index
        previous = slots.get(slot)

        def marked(args, extra):
            inside = {**args[keys.TRANSFORMER_OPTIONS], keys.MARK: Mark(kind, index)}
            args = {**args, keys.TRANSFORMER_OPTIONS: inside}
            return extra[keys.ORIGINAL_BLOCK](args) if previous is None else previous(args, extra)

        slots[slot] = _never_compiled(marked)

    def announce(call: AttentionCall) -> None:
        forward = call.forward
        address = None if forward is None else forward.next_address(call.mark, call.block)
        if forward is None or address is None:
            run.announce(None, call.q.device)
            return
        _, tokens = call.size(call.q)
        run.announce(address, call.q.device, call.conditions, call.prompts, image=forward.image(tokens, call.image_start))

    slots = options.setdefault(keys.REPLACEMENTS, {}).setdefault(keys.TRANSFORMER_SLOTS, {})
    for kind, index in family.markable_blocks(network):
        mark(kind, index)
    add_wrapper_with_key(WrappersMP.APPLY_MODEL, keys.WRAPPER, apply_model, options)
    return announce


def _branches(guider, conds: Sequence) -> tuple[str, ...]:
    """Which of `conds` is negative: guiders order them as they like, and context windows copy them."""
    negatives = {condition[keys.PROMPT_ID] for condition in guider.original_conds.get(keys.NEGATIVE_PROMPTS) or ()}
    negative = next((position for position, cond in enumerate(conds) if cond and cond[0][keys.PROMPT_ID] in negatives), 1)
    return tuple(NEGATIVE if position == negative else POSITIVE for position in range(len(conds)))


def _never_compiled(function: Callable) -> Callable:
    """Values read inside a compiled attention are frozen at their first value, so stay outside."""
    # Importing dynamo takes seconds; where nobody has, nothing is compiled.
    return torch.compiler.disable(function) if "torch._dynamo" in sys.modules else function
