"""Which runs of a probe a Readout shows: those of the prompt at hand, of this call of the node."""

from nodes import NODE_CLASS_MAPPINGS  # type: ignore[attr-defined]  # ComfyUI's module, not the folder of this pack

from ..records.record import Record, as_record
from .prompt import Prompt, executing, node_of_graph, reached, running_prompt, signature, upstream, uses_output

MODEL_OUTPUT = 0  # of Stability Probe
EMPTY = (
    "Nothing was sampled with this probe's model in this prompt, so there is nothing to show. Connect the probe's model to a sampler, "
    "with other model nodes between them if you like, and that sampler's latent to 'after'. See that the sampler has a step to do: "
    "denoise above 0, start_at_step below steps. If ComfyUI took the latent from its cache, change the seed."
)


def record_shown(stability: object, prompt: Prompt | None, reader: str) -> Record:
    """Of a probe what came of sampling its model on the way to the input `after` of a Readout; whatever there is, where nothing samples it.

    A run counts if its node stands in the prompt as it did when it sampled. Where a node sampled a list,
    each call of the Readout has the run of the same place in it, unless the list was taken apart in between.
    Raises ValueError where something samples the model and the Readout does not wait for it.
    """
    live = as_record("stability", stability)
    if isinstance(live, Record):
        return live
    prompt = running_prompt(executing().prompt) or prompt or {}
    before = upstream(prompt, reader, "after")
    if before is None:
        if uses_output(prompt, live.probe, MODEL_OUTPUT):
            raise ValueError(
                "Connect the latent of the sampler that uses the probe's model, or the image made of it, to 'after'. "
                "Without it this node may run before the sampler, and would show an earlier run."
            )
        return live.of(None)
    probe = node_of_graph(live.probe) if live.probe is not None else None
    sampled = [node for node in before & live.nodes if probe is None or probe in reached(prompt, node)]
    record = live.of({node: signature(prompt, node) for node in sampled})
    call = executing().call
    for node in sampled:
        calls = {run.info.call for run in record.runs if run.info.node == node}
        if len(calls) > 1 and call in calls and not _lists_between(prompt, before, node):
            record = Record(tuple(run for run in record.runs if run.info.node != node or run.info.call == call))
    return record


def _lists_between(prompt: Prompt, before: set[str], node: str) -> bool:
    """Whether any of the nodes that depend on a node takes or gives whole lists."""
    classes = [NODE_CLASS_MAPPINGS.get(prompt[id]["class_type"]) for id in before if id != node and node in reached(prompt, id)]
    return any(getattr(c, "INPUT_IS_LIST", False) or any(getattr(c, "OUTPUT_IS_LIST", None) or ()) for c in classes)
