"""What a record says of its run."""

from collections.abc import Sequence

from comfyui_version import __version__ as comfyui_version

from .. import __version__ as pack_version
from ..choices import ALL_TOKENS
from ..records.record import RunInfo
from ..run.observer import Observer
from ..run.run import Run
from .model import model_name
from .prompt import call_of_graph, executing, node_of_graph, running_prompt, signature


def run_info(run: Run, observer: Observer, guider, sampler, schedule: Sequence[float], seed: int | None) -> RunInfo:
    """Of what one observer saw in a run of a guider. `schedule` are the sigmas handed to the sampler."""
    node, prompt, call = executing()
    queued = running_prompt(prompt)
    cfg = getattr(guider, "cfg", None)
    notes = [f"Left out {count} {what}." for what, count in observer.left_out.items()]
    if observer.probe.tokens == ALL_TOKENS:
        notes.append("Measured over all tokens, those of the text included where they share an attention.")
    change = run.outcome.attention_change()
    return RunInfo(
        label=observer.probe.label,
        space=observer.probe.space,
        family=model_name(guider.model_patcher),
        sampler=sampler_name(sampler),
        steps=len(schedule) - 1,
        schedule=tuple(schedule),
        blocks=tuple(map(str, observer.probe.blocks)),
        rules=tuple(map(str, run.plan.rules)),
        notes=(*map(str, run.outcome.notes()), *notes),
        complete=not run.outcome.stopped,
        node=node and node_of_graph(node),
        prompt=prompt,
        pack_version=pack_version,
        comfyui_version=comfyui_version,
        seed=seed if isinstance(seed, int) else None,
        cfg=cfg if isinstance(cfg, (int, float)) else None,
        call=call_of_graph(node, call) if node else None,
        signature=signature(queued, node_of_graph(node)) if node and queued else None,
        attention_change=change and change.median,
        attention_change_in=change and change.measured_in,
        model_blocks=observer.model_blocks,
    )


def sampler_name(sampler) -> str:
    """'euler' from sample_euler: ComfyUI's sampler objects do not keep the name that they were chosen by."""
    function = getattr(sampler, "sampler_function", sampler)
    return getattr(function, "__name__", type(function).__name__).removeprefix("sample_").removesuffix("_function")
