"""How rules and probes come to act on a MODEL: the only file that touches ComfyUI's ModelPatcher.

A node leaves two things on its clone of the model: a list of rules and probes, and one wrapper around
sampling. All else is put in place when sampling starts, into the options that ComfyUI copies for
that one run, and is gone with them: after the run the model is as it was, however the run ended.
Starting late also puts us on top of whatever other nodes installed, before or after ours.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable

import torch
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy_execution.utils import get_executing_context

from . import families
from .attention import Call
from .circulation import ALL_TOKENS
from .forward import Forward, Mark
from .live import STATUS, tell
from .plan import Plan
from .probe import Observer, Probe
from .record import RunInfo
from .rule import NEGATIVE, POSITIVE, Rule
from .run import Run

KEY = "circulation"


def add(model, addition: Rule | Probe):
    """A clone of the MODEL with one more rule, which wins over the earlier ones, or one more probe."""
    patched = model.clone()
    patched.set_attachments(KEY, (*(model.get_attachment(KEY) or ()), addition))
    patched.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _sample)
    return patched


def _sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    guider = executor.class_obj
    model = guider.model_patcher
    additions = model.get_attachment(KEY)
    schedule = tuple(sigmas.tolist())
    blocks = families.blocks(model)
    run = Run(
        # the model's sampling is read here, not in the node: a ModelSampling node may come after ours
        plan=Plan([a for a in additions if isinstance(a, Rule)], model.get_model_object("model_sampling"), blocks),
        observers=[Observer(a, schedule) for a in additions if isinstance(a, Probe)],
        blocks=blocks,
        sigmas=schedule,
        video=families.alternates_with_time(families.network(model)),
    )
    if run.idle:
        _tell_nodes(run)
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    _install(run, guider)
    complete = False
    try:
        out = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        complete = True
        return out
    finally:
        run.report()
        _tell_nodes(run, complete)
        for observer in run.observers:
            observer.finish(_info(run, observer, model, sampler, schedule, complete))


def _tell_nodes(run: Run, complete: bool = True) -> None:
    for node, line in run.statuses():
        tell(STATUS, node, {"text": line if complete else f"Stopped early. {line}"})


def _info(run: Run, observer: Observer, model, sampler, schedule, complete: bool) -> RunInfo:
    context = get_executing_context()
    function = getattr(sampler, "sampler_function", sampler)
    notes = [f"Left out {count} {what}." for what, count in observer.left_out.items()]
    if observer.probe.tokens == ALL_TOKENS:
        notes.append("Measured over all tokens, those of the text included where they share an attention.")
    return RunInfo(
        label=observer.probe.label,
        space=observer.probe.space,
        family=families.name(model),
        sampler=getattr(function, "__name__", type(function).__name__).removeprefix("sample_").removesuffix("_function"),
        steps=len(schedule) - 1,
        schedule=schedule,
        blocks=tuple(map(str, observer.probe.blocks)),
        rules=tuple(map(str, run.plan.rules)),
        notes=(*run.declined(), *notes),
        complete=complete,
        node=context and _of_the_graph(context.node_id),
        prompt=context and context.prompt_id,
    )


def _of_the_graph(node: str) -> str:
    """The node that the user sees: what a node expands into has ids such as "7.0.0.2", where 7 is that node's."""
    return re.split(r"\.\d+\.\d+\.", node)[0]


def _install(run: Run, guider) -> None:
    options = guider.model_options["transformer_options"]  # ComfyUI's copy for this run
    previous = options.get("optimized_attention_override")
    family, module = families.find(guider.model_patcher), families.network(guider.model_patcher)
    announce = _follow_transformer(run, options, family, module) if isinstance(family, families.Transformer) else None
    if announce is None:
        _mark_unet(run, options)

    def override(func, *args, **kwargs):
        call = Call(func, previous, args, kwargs)
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
        # called with: a new argument keeps it from taking the code made for the model without us.
        return executor(*args, circulation=True, **kwargs)

    options["optimized_attention_override"] = _never_compiled(override)
    add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict_noise, options)
    add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, calc_cond_batch, options)
    if "torch_compile_kwargs" in guider.model_options and _takes_any_argument(module.forward):
        add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, apply_model, options)


def _takes_any_argument(function) -> bool:
    """HiDream's does not: compiled and run without us, it has to be compiled anew to be circulated."""
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(function).parameters.values())


def _mark_unet(run: Run, options: dict) -> None:
    """UNets have patches in front of their attentions, which announce them."""

    def self_attention(q_input, k_input, v_input, extra_options):
        address = (*extra_options["block"], extra_options["block_index"])
        run.announce(address, v_input.device, extra_options["cond_or_uncond"], extra_options["uuids"], x=v_input)
        return q_input, k_input, v_input

    def cross_attention(q_input, k_input, v_input, extra_options):
        run.announce(None, q_input.device)
        return q_input, k_input, v_input

    patches = options.setdefault("patches", {})
    patches.setdefault("attn1_patch", []).append(_never_compiled(self_attention))
    patches.setdefault("attn2_patch", []).append(_never_compiled(cross_attention))


def _follow_transformer(run: Run, options: dict, family: families.Transformer, module) -> Callable[[Call], None]:
    """Transformers are followed through each call of the model. What comes back announces an attention call."""
    places = family.places(module)

    def apply_model(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **conditions):
        forward = Forward(family, module, places, x.shape, conditions)
        followed = {**transformer_options, KEY: forward}
        out = executor(x, t, c_concat, c_crossattn, control, followed, **conditions)
        if forward.miscounted:
            run.distrust()
        return out

    def mark(slot, kind, index):
        previous = slots.get((slot, index))

        def marked(args, extra):
            args = {**args, "transformer_options": {**args["transformer_options"], Forward.MARK: Mark(kind, index)}}
            return extra["original_block"](args) if previous is None else previous(args, extra)

        slots[slot, index] = _never_compiled(marked)

    def announce(call: Call) -> None:
        forward = call.options.get(KEY)
        address = None if forward is None else forward.next_address(call.options)
        if address is None:
            run.announce(None, call.q.device)
            return
        _, tokens = call.tokens(call.q)
        image = forward.image(tokens, call.options)
        run.announce(address, call.q.device, call.options["cond_or_uncond"], call.options["uuids"], image=image)

    slots = options.setdefault("patches_replace", {}).setdefault("dit", {})
    for name in family.slot_names(module):
        mark(*name)
    add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, apply_model, options)
    return announce


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
