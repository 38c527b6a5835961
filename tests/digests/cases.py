"""The cases: runs of small models with the pack's nodes in ComfyUI's sampler, and a digest of everything that came of them.

Nothing here knows the engine: it uses the nodes as ComfyUI has registered them, ComfyUI itself, and hooks on the networks' modules.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.ldm.modules.attention as attention
import comfy.sample
import comfy.supported_models
import folder_paths
import torch
from safetensors import safe_open
from support import host, models, transformers

VALUE_SPACE, INPUT_SPACE = "value space", "input space (paper)"
ADAPTIVE = "CirculationAdaptive"
OVERRIDE = "optimized_attention_override"

# The modules that take what a self-attention gave, by their names in ComfyUI's networks
OUTPUTS = re.compile(r"attn1\.to_out|(img_attn|txt_attn|attn)\.proj|single_blocks\.\d+\.linear2|self_attn\.o|layers\.\d+\.attention\.out")
HOOKED = ("sd15", "one level", "sdxl", "flux", "wan", "z_image", "lumina2", "sd3")  # where these are all of them
PLOTS = ("sheet", "curves", "heat map", "images")

# The fields that a run had in the first format of records
FIELDS = ("label", "space", "family", "sampler", "steps", "schedule", "blocks", "rules", "notes", "complete", "node", "prompt")

Rules = tuple[dict, ...]  # the inputs of each Circulation node, nearest to the model first


@dataclass(frozen=True)
class Case:
    name: str
    model: str
    rules: Rules = ()
    space: str | None = None  # of a probe after the rules
    dtype: torch.dtype = torch.float32
    size: tuple[int, int] = (16, 12)  # of a UNet's latent
    batch: int = 2
    steps: int = 3
    cfg: float = 4.0
    threads: int = 1
    backend: str | None = None  # of ComfyUI's
    before: Callable | None = None  # what is done to the MODEL before the rules, and after them
    after: Callable | None = None
    prompt: dict = field(default_factory=dict)  # what else the positive prompt holds
    probe: dict = field(default_factory=dict)  # further inputs of the probe
    plots: tuple[str, ...] = PLOTS[-1:]


# Rules

STATIC = dict(alpha=1.2, beta=3.0)
GRID = '{"grid": [[1, 0.5, 2], [0, 1.5, 1], [2, 1, 0.25]]}'
SHORT: dict[str, Rules] = {
    "static": (STATIC,),
    "below 1": (dict(alpha=0.4, beta=2.0),),
    "below 1, input space": (dict(alpha=0.4, beta=2.0, rescale=INPUT_SPACE),),
    "adaptive": (dict(node_id=ADAPTIVE, alpha=1.4, beta=4.0),),
    "two rules": (
        dict(STATIC, blocks="0%-60%", tokens="all"),
        dict(node_id=ADAPTIVE, blocks="40%-100%", branches="positive", end_percent=0.6),
    ),
}
FULL: dict[str, Rules] = {
    **SHORT,
    "strong": (dict(alpha=3.0, beta=10.0),),
    "below 0": (dict(alpha=-1.0, beta=0.5),),
    "input space": (dict(STATIC, rescale=INPUT_SPACE),),
    "no rescale": (dict(STATIC, rescale="off"),),
    "early": (dict(STATIC, end_percent=0.4),),
    "late, input space": (dict(STATIC, start_percent=0.3, rescale=INPUT_SPACE),),
    "in between": (dict(STATIC, start_percent=0.2, end_percent=0.7),),
    "positive": (dict(STATIC, branches="positive"),),
    "negative": (dict(STATIC, branches="negative"),),
    "negative, adaptive, input space": (dict(node_id=ADAPTIVE, branches="negative", rescale=INPUT_SPACE),),
    "all tokens": (dict(STATIC, tokens="all"),),
    "all tokens, input space": (dict(STATIC, tokens="all", rescale=INPUT_SPACE),),
    "some blocks": (dict(STATIC, blocks="20%-70%"),),
    "schedule": (dict(STATIC, schedule=GRID),),
    "schedule, adaptive": (dict(node_id=ADAPTIVE, schedule=GRID),),
    "one rule over another": (dict(alpha=0.5, beta=1.0), dict(STATIC, blocks="30%-60%")),
    "on the first half and the second": (dict(STATIC, end_percent=0.5), dict(alpha=0.5, beta=1.0, start_percent=0.5, rescale=INPUT_SPACE)),
    "off": (dict(alpha=1.0, beta=3.0),),
}
for _formula, _over in itertools.product(("deviation", "scale"), ("image", "head", "batch")):
    for _alpha, _beta in ((True, True), (True, False), (False, True), (False, False)):
        _name = f"adaptive by {_formula} over {_over}{', alpha' * _alpha}{', beta' * _beta}"
        FULL[_name] = (dict(node_id=ADAPTIVE, formula=_formula, eta_over=_over, adapt_alpha=_alpha, adapt_beta=_beta),)
FULL["adaptive by scale over head, input space"] = (dict(node_id=ADAPTIVE, formula="scale", eta_over="head", rescale=INPUT_SPACE),)
FULL["adaptive without rescale, all tokens"] = (dict(node_id=ADAPTIVE, eta_over="batch", rescale="off", tokens="all"),)


# What other nodes do to a model


def overridden(model, change: Callable):
    """A clone whose attention calls have their arguments changed, before what was there already."""
    model = model.clone()
    options = model.model_options["transformer_options"]
    previous = options.get(OVERRIDE)

    def override(func, q, k, v, *args, **kwargs):
        q, kwargs = change(q, k, kwargs)
        return func(q, k, v, *args, **kwargs) if previous is None else previous(func, q, k, v, *args, **kwargs)

    options[OVERRIDE] = override
    return model


def sharper(model):
    return overridden(model, lambda q, k, kwargs: (q * 1.25, kwargs))


def masked(*leading: int):
    """Gives each self-attention a mask; `leading` are the axes before its queries and keys, 0 for as many as there are rows."""

    def change(q, k, kwargs):
        if q.shape == k.shape and not kwargs.get("skip_reshape"):
            shape = [size or q.shape[0] for size in leading]
            mask = torch.randn(*shape, q.shape[1], k.shape[1], generator=torch.Generator().manual_seed(3))
            kwargs = {**kwargs, "mask": 3 * mask.to(q.dtype)}
        return q, kwargs

    return lambda model: overridden(model, change)


IPADAPTER = {"attention_mask": 3 * torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(4)), "attention_mask_img_shape": (8, 6)}


def all_cases() -> Iterator[Case]:
    bf16 = torch.bfloat16
    for model in ("sd15", "flux"):
        for name, rules in FULL.items():
            yield Case(f"{model}: {name}", model, rules, VALUE_SPACE)
    for model in ("sd15", "sdxl", "flux", "wan", "z_image"):
        for dtype in (torch.float32, bf16):
            number = "bfloat16" if dtype == bf16 else "float32"
            for space in (None, VALUE_SPACE, INPUT_SPACE):
                for name, rules in {"no rule": (), **SHORT}.items():
                    yield Case(f"{model} in {number}: {name}, {f'probe in {space}' if space else 'no probe'}", model, rules, space, dtype)
    for model in ("lumina2", "sd3"):  # with fewer heads of keys, with two attentions in a block
        for name, rules in SHORT.items():
            yield Case(f"{model}: {name}", model, rules, VALUE_SPACE)
    for model in (*models.CONFIGS, *transformers.FAMILIES):
        if model in models.CONFIGS or hasattr(comfy.supported_models, transformers.FAMILIES[model].family):
            yield Case(f"every family, {model}", model, SHORT["static"], VALUE_SPACE)
    for mask, leading in {"one": (), "per row": (0,), "broadcast": (1, 1), "per head": (0, 8)}.items():
        for name, rules in SHORT.items():
            yield Case(f"sd15: {name}, mask {mask}", "sd15", rules, INPUT_SPACE, after=masked(*leading))
    for name, rules in SHORT.items():
        for backend in ("pytorch", "sub_quad", "split", "basic"):
            yield Case(f"sd15: {name}, {backend}", "sd15", rules, INPUT_SPACE, backend=backend)
            yield Case(f"sd15 in bfloat16: {name}, {backend}", "sd15", rules, VALUE_SPACE, bf16, backend=backend)
        yield Case(f"sd15: {name}, another override below", "sd15", rules, INPUT_SPACE, before=sharper)
        yield Case(f"sd15: {name}, another override above", "sd15", rules, VALUE_SPACE, after=sharper)
        yield Case(f"sd15: {name}, no guidance", "sd15", rules, VALUE_SPACE, cfg=1.0)
        many: dict[str, Any] = dict(model="one level", rules=rules, space=INPUT_SPACE, batch=1, steps=1)
        yield Case(f"many tokens: {name}", size=(36, 32), **many)
        yield Case(f"many tokens: {name}, pytorch", size=(36, 32), backend="pytorch", **many)
        yield Case(f"many tokens in bfloat16: {name}", dtype=bf16, size=(36, 32), **many)
        for size in ((32, 32), (26, 40)):
            yield Case(f"many tokens, {size}: {name}, two threads, no guidance", size=size, threads=2, cfg=1.0, backend="pytorch", **many)
    for name in ("static", "adaptive", "all tokens"):
        yield Case(f"flux: {name}, mask", "flux", FULL[name], VALUE_SPACE, prompt=IPADAPTER)
    yield Case("sd15: all plots", "sd15", SHORT["static"], VALUE_SPACE, plots=PLOTS)
    yield Case("sd15: a probe of some steps, blocks and one branch", "sd15", SHORT["static"], INPUT_SPACE,
               probe=dict(every_n_steps=2, blocks="middle output.1", branches="negative", label="a label"))  # fmt: skip
    yield Case("flux: a probe of all tokens", "flux", SHORT["static"], VALUE_SPACE, probe=dict(tokens="all"))


@functools.cache
def model_of(name: str, dtype: torch.dtype):
    if name == "one level":
        return models.build("sd15", dtype, **models.ONE_LEVEL)
    return models.build(name, dtype) if name in models.CONFIGS else transformers.build(name, dtype)


# What came of a run


def digests(only: str = "") -> dict[str, str]:
    """{name of a case and of a part of what it gave: sha256}"""
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        folder_paths.set_output_directory(directory)
        folder_paths.set_temp_directory(directory)
        for case in all_cases():
            if only in case.name:
                for part, digest in results(case):
                    assert f"{case.name}: {part}" not in found, case.name
                    found[f"{case.name}: {part}"] = digest
    return found


def results(case: Case) -> Iterator[tuple[str, str]]:
    model = model_of(case.model, case.dtype)
    with attention_outputs(model, case.model in HOOKED) as outputs, backend(case.backend), threads(case.threads), pack_log() as lines:
        try:
            changed, live = with_nodes(case, model)
        except ValueError as refusal:  # of input space, which transformers do not show
            yield "refusal", of_text(str(refusal))
            return
        yield "image", of_tensor(sample(case, changed))
        yield "log", of_text("\n".join(lines))
    if case.model in HOOKED:
        yield "attention outputs", outputs.hexdigest()
    yield "blocks", of_text(host.node("ModelBlocks").execute(model).result[0])
    if live is not None:
        yield from of_record(live, case.plots)


def with_nodes(case: Case, model):
    """The MODEL under the case's nodes, and the record that its probe will fill, if it has one."""
    live = None
    model = case.before(model) if case.before else model
    for inputs in case.rules:
        schedule = {"schedule": host.node("CirculationSchedule").execute(inputs["schedule"]).result[0]} if "schedule" in inputs else {}
        model = host.patch(model, **{**inputs, **schedule})
    if case.space:
        model, live = host.probe(model, **{"measure_in": case.space, **case.probe})
    return case.after(model) if case.after else model, live


def sample(case: Case, model) -> torch.Tensor:
    if case.model in transformers.FAMILIES:
        latent = torch.zeros(case.batch, *transformers.FAMILIES[case.model].latent)
        positive, negative = transformers.conditioning(case.model, 1, **case.prompt), transformers.conditioning(case.model, 2, tokens=11)
    else:
        name = "sd15" if case.model == "one level" else case.model
        latent = torch.zeros(case.batch, 4, *case.size)
        positive, negative = models.conditioning(name, 1), models.conditioning(name, 2)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, case.steps, case.cfg, "euler", "normal", positive, negative, latent, disable_pbar=True, seed=0
        )


@contextlib.contextmanager
def attention_outputs(model, hooked: bool):
    """A digest that all self-attentions of a network add their outputs to, in order."""
    digest = hashlib.sha256()
    named = model.model.diffusion_model.named_modules()
    modules = [module for name, module in named if hooked and re.fullmatch(rf".*\b({OUTPUTS.pattern})", name)]
    assert modules or not hooked, "this version of ComfyUI names the modules after its self-attentions in another way"
    handles = [module.register_forward_pre_hook(lambda module, inputs: digest.update(data(inputs[0]))) for module in modules]
    try:
        yield digest
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def backend(name: str | None):
    """Makes a backend ComfyUI's choice for UNets, as its command line does."""
    chosen = attention.optimized_attention, attention.optimized_attention_masked
    if name:
        attention.optimized_attention = attention.optimized_attention_masked = getattr(attention, f"attention_{name}")
    try:
        yield
    finally:
        attention.optimized_attention, attention.optimized_attention_masked = chosen


@contextlib.contextmanager
def threads(number: int):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def pack_log():
    """What the pack says about its runs."""
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record):
            if record.getMessage().startswith("Circulation"):
                lines.append(record.getMessage())

    root = logging.getLogger()
    level, handlers = root.level, root.handlers
    root.setLevel(logging.INFO)
    root.handlers = [Listener()]
    try:
        yield lines
    finally:
        root.handlers = handlers
        root.setLevel(level)


def of_record(live, plots: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The graphs and the table of a record, and all that its file holds."""
    for plot in plots:
        _, graph, _, table, record = host.with_hidden("StabilityReadout", UNIQUE_ID="2", PROMPT={}).execute(live, plot, "energy").result
        yield f"graph, {plot}", of_tensor(graph)
    if len(plots) > 1:
        yield "graph, compared", of_tensor(host.node("StabilityCompare").execute(record, record).result[0])
    yield "table", of_text(table)
    host.node("SaveStability").execute(record, "record")
    (path,) = Path(folder_paths.get_output_directory()).glob("*.safetensors")
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    path.unlink()
    yield "record measures", of_text(metadata["measures"])
    for name, tensor in tensors.items():
        yield f"record {name}", of_tensor(tensor)
    for number, run in enumerate(json.loads(metadata["runs"])):
        for name in FIELDS:
            yield f"record {number}.{name}", of_text(json.dumps(run[name]))


def of_tensor(tensor: torch.Tensor) -> str:
    return hashlib.sha256(data(tensor)).hexdigest()


def of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def data(tensor: torch.Tensor) -> bytes:
    """A tensor's shape, type and bits."""
    plain = tensor.detach().contiguous()
    return f"{plain.dtype} {tuple(plain.shape)} ".encode() + plain.view(torch.uint8).numpy().tobytes()
