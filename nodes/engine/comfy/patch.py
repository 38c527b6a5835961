"""How rules and probes come to act on a MODEL: the only file that touches ComfyUI's ModelPatcher.

A node leaves two things on its clone of the model: a list of rules and probes, and one wrapper around
sampling. All else is put in place when sampling starts, into the options that ComfyUI copies for
that one run, and is gone with them: after the run the model is as it was, however the run ended and
however often another node's wrapper calls ours.
Starting late also puts us on top of whatever other nodes installed, before or after ours.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Sequence

import torch
from comfy.ldm.modules import attention
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key, copy_nested_dicts
from torch.nn import Module

from ..choices import NEGATIVE, POSITIVE
from ..families.forward import Forward, Mark
from ..families.transformer import TransformerFamily
from ..families.unet import alternates_with_time
from ..phrases import Phrase, line_of
from ..rules.plan import Plan
from ..rules.rule import Rule
from ..run.observer import Observer, Probe
from ..run.outcome import Reason
from ..run.run import Run
from ..text import ascii_line
from . import events, kernels, keys
from .attention_call import AttentionCall
from .compiled import code_of_its_own
from .handing_on import HandingOn, handing_on, patch_blocks
from .model import diffusion_model, family_of, patchable_blocks
from .prompt import node_of_graph
from .run_info import run_info, sampler_name

log = logging.getLogger("circulation")

OWN_SCHEDULE = ("dpm_adaptive", "dpm_fast")  # these samplers go through sigmas of their own


def attach(model, addition: Rule | Probe):
    """A clone of the MODEL with one more rule, which wins over the earlier ones, or one more probe."""
    patched = model.clone()
    patch_blocks(patched)
    patched.set_attachments(keys.ATTACHMENT, (*(model.get_attachment(keys.ATTACHMENT) or ()), addition))
    patched.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, keys.WRAPPER)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, keys.WRAPPER, _sample)
    return patched


def _sample(
    executor, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None, *args, **kwargs
):
    guider = executor.class_obj
    schedule = tuple(sigmas.tolist())
    run = _new_run(guider.model_patcher, schedule)
    if run is None or run.idle:
        if run is not None:
            _without_raising(_send_statuses, run)
        return executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, *args, **kwargs)
    # Options of our own for this one call: other wrappers may call us several times with theirs.
    options = guider.model_options
    guider.model_options = copy_nested_dicts(options)
    try:
        _install(run, guider)
        run.outcome.stopped = True
        following = _following(run, sampler, callback)
        out = executor(noise, latent_image, sampler, sigmas, denoise_mask, following, disable_pbar, seed, *args, **kwargs)
        run.outcome.stopped = False
        return out
    finally:
        guider.model_options = options
        _without_raising(run.outcome.report)
        _without_raising(_send_statuses, run)
        for observer in run.observers:
            _without_raising(_finish, observer, run, guider, sampler, schedule, seed)


def _following(run: Run, sampler, callback: Callable | None) -> Callable:
    """The sampler's callback, which also tells the run which step is done."""
    follows = sampler_name(sampler) not in OWN_SCHEDULE

    def step_done(step, *args):
        if follows:
            run.step_done(step)
        return None if callback is None else callback(step, *args)

    return step_done


def _finish(observer: Observer, run: Run, guider, sampler, schedule: Sequence[float], seed) -> None:
    observer.finish(run_info(run, observer, guider, sampler, schedule, seed))


def _new_run(model, schedule: Sequence[float]) -> Run | None:
    """None, and a line in the log, for a model that was accepted by our node and has become another one since."""
    additions = model.get_attachment(keys.ATTACHMENT)
    rules = [a for a in additions if isinstance(a, Rule)]
    probes = [a for a in additions if isinstance(a, Probe)]
    # the model's sampling is read here, not in the node: a ModelSampling node may come after ours
    percent_to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    if all(rule.off for rule in rules) and not probes:
        return Run(Plan(rules, percent_to_sigma), [], [], schedule, video=False)
    try:
        if (model.model_options.get(keys.COMPILE_OPTIONS) or {}).get(keys.ONE_GRAPH):
            raise ValueError(Phrase("oneGraph"))
        blocks, video = patchable_blocks(model), alternates_with_time(diffusion_model(model))
        handing_on(model)
    except (ValueError, TypeError) as error:
        log.warning("Circulation left the model alone: %s", ascii_line(str(error)))
        why = next((reason for reason in error.args if isinstance(reason, Phrase)), str(error))
        line = line_of([Phrase("modelLeftAlone", why=why)])
        for rule in rules:
            events.send(events.STATUS, rule.node and node_of_graph(rule.node), line)
        return None
    observers = [Observer(probe, schedule, blocks, percent_to_sigma) for probe in probes]
    return Run(Plan(rules, percent_to_sigma, blocks), observers, blocks, schedule, video)


def _without_raising(say: Callable, *args) -> None:
    """A run that was sampled is worth more than what is said of it."""
    try:
        say(*args)
    except Exception as error:
        with contextlib.suppress(Exception):
            log.warning("Circulation could not say what came of the run: %s", ascii_line(repr(error)))


def _send_statuses(run: Run) -> None:
    for node, sentences, hit in run.outcome.statuses():
        events.send(events.STATUS, node_of_graph(node), {**line_of(sentences), "blocks": hit})


def _install(run: Run, guider) -> None:
    options = guider.model_options[keys.TRANSFORMER_OPTIONS]
    previous = options.get(keys.ATTENTION_OVERRIDE)
    family, network = family_of(guider.model_patcher), diffusion_model(guider.model_patcher)
    announce = None
    if isinstance(family, TransformerFamily):
        announce = _follow_transformer(run, options, family, network, handing_on(guider.model_patcher))
    if announce is None:
        _announce_from_patches(run, options)

    def override(func, *args, **kwargs):
        call = AttentionCall(func, previous, args, kwargs)
        if announce is not None:
            announce(call)
        return run.attention(call)

    def of_containers(*args, **kwargs):
        return override(kernels.function_of(attention.optimized_attention), *args, **kwargs)

    def predict_noise(executor, x, timestep, *args, **kwargs):
        run.begin_evaluation(timestep)
        out = executor(x, timestep, *args, **kwargs)
        run.end_evaluation(out)
        return out

    def calc_cond_batch(executor, model, conds, x, timestep, model_options):
        run.begin_pass(timestep, _conditions(guider, conds), x.shape[0])
        return executor(model, conds, x, timestep, model_options)

    def apply_model(executor, *args, **kwargs):
        with code_of_its_own():
            return executor(*args, **kwargs)

    options[keys.ATTENTION_OVERRIDE] = _never_compiled(override)
    setattr(options[keys.ATTENTION_OVERRIDE], keys.CONTAINER_FUNCTION, _never_compiled(of_containers))
    add_wrapper_with_key(WrappersMP.PREDICT_NOISE, keys.WRAPPER, predict_noise, options)
    add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, keys.WRAPPER, calc_cond_batch, options)
    run.outcome.compiled = keys.COMPILE_OPTIONS in guider.model_options
    add_wrapper_with_key(WrappersMP.APPLY_MODEL, keys.WRAPPER, apply_model, options)


def _announce_from_patches(run: Run, options: dict) -> None:
    """UNets have patches in front of their attentions, which announce them."""

    def self_attention(q_input, k_input, v_input, extra_options):
        address = (*extra_options[keys.UNET_BLOCK], extra_options[keys.BLOCK_INDEX])
        conditions, prompts = (extra_options.get(key, ()) for key in (keys.CONDITIONS, keys.PROMPTS))
        run.announce(address, v_input.device, conditions, prompts, x=v_input)
        return q_input, k_input, v_input

    def cross_attention(q_input, k_input, v_input, extra_options):
        run.announce(None, q_input.device)
        return q_input, k_input, v_input

    patches = options.setdefault(keys.PATCHES, {})
    patches.setdefault(keys.SELF_ATTENTION_PATCH, []).append(_never_compiled(self_attention))
    patches.setdefault(keys.CROSS_ATTENTION_PATCH, []).append(_never_compiled(cross_attention))


def _follow_transformer(
    run: Run, options: dict, family: TransformerFamily, network: Module, blocks_are_handed: HandingOn | None
) -> Callable[[AttentionCall], None]:
    """Transformers are followed through each call of the model. Returns what announces an attention call."""
    address_of_call = family.address_of_call(network)

    def apply_model(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **conditions):  # noqa: B006
        forward = Forward(family, network, address_of_call, x.shape, {**conditions, "c_crossattn": c_crossattn})
        followed = {**transformer_options, keys.FORWARD: forward}
        with contextlib.nullcontext() if blocks_are_handed is None else blocks_are_handed.during(followed):
            out = executor(x, t, c_concat, c_crossattn, control, followed, **conditions)
        if forward.miscounted:
            run.outcome.distrusted = True
        return out

    def mark(kind: str, index: int):
        slot = keys.SLOT.format(kind), index
        previous = slots.get(slot)

        def marked(args, extra):
            args, extra = dict(args), dict(extra)
            # ComfyUI gives the options in the first argument, forwards of other packs in either or in none
            holder = next((given for given in (args, extra) if given.get(keys.TRANSFORMER_OPTIONS) is not None), None)
            if holder is None:
                run.outcome.decline(address_of_call[kind, index, 0], Reason.NO_OPTIONS)
            else:
                given = holder[keys.TRANSFORMER_OPTIONS]
                passed_over = bool(given.get(keys.LEAVES_SELF_ATTENTION_OUT)) or not given.get(keys.RUNS_VIDEO, True)
                holder[keys.TRANSFORMER_OPTIONS] = {**given, keys.MARK: Mark(kind, index, int(passed_over))}
            return extra[keys.ORIGINAL_BLOCK](args) if previous is None else previous(args, extra)

        slots[slot] = _never_compiled(marked)

    def announce(call: AttentionCall) -> None:
        forward = call.forward
        size = call.size(call.q)[1], call.size(call.k)[1]
        address = None if forward is None else forward.next_address(call.mark, call.block, *size)
        if forward is None or address is None:
            run.announce(None, call.q.device)
            return
        image, every = forward.squares(*size, call.image_start)
        run.announce(address, call.q.device, call.conditions, call.prompts, image=image, every=every)

    blocks = list(family.markable_blocks(network))
    if blocks:  # else nothing is put there: compiled code may come to depend on it
        slots = options.setdefault(keys.REPLACEMENTS, {}).setdefault(keys.TRANSFORMER_SLOTS, {})
    for kind, index in blocks:
        mark(kind, index)
    add_wrapper_with_key(WrappersMP.APPLY_MODEL, keys.WRAPPER, apply_model, options)
    return announce


def _conditions(guider, conds: Sequence) -> list[tuple[str, bool]]:
    """Of each of `conds` its branch, and whether it is the guider's positive or negative rather than a third condition.

    Guiders order them as they like, and context windows copy them. Where neither is known, the second is taken for the negative.
    """
    names = keys.POSITIVE_PROMPTS, keys.NEGATIVE_PROMPTS
    positives, negatives = (
        {prompt.get(keys.PROMPT_ID) for prompt in guider.original_conds.get(name) or ()} - {None} for name in names
    )
    ids = [cond[0].get(keys.PROMPT_ID) if cond else None for cond in conds]
    known = any(id in positives for id in ids)
    negative = next((position for position, id in enumerate(ids) if id in negatives), None if known and negatives else 1)
    return [
        (NEGATIVE, True) if position == negative else (POSITIVE, id in positives or not known) for position, id in enumerate(ids)
    ]


def _never_compiled(function: Callable) -> Callable:
    """Values read inside a compiled attention are frozen at their first value, so stay outside."""
    # Importing dynamo takes seconds; where nobody has, nothing is compiled.
    return torch.compiler.disable(function) if "torch._dynamo" in sys.modules else function
