"""The nodes that look: Stability Probe, Readout and Compare, and the files between them."""

import math
from functools import partial

from comfy_api.latest import io, ui

from .engine.choices import (
    BOTH,
    BRANCHES,
    IMAGE_TOKENS,
    INPUT_SPACE,
    LIGHT,
    MEASURES,
    THEMES,
    TOKENS,
    VALUE_SPACE,
    check_number,
    check_text,
    check_word,
)  # fmt: skip
from .engine.comfy import events, readout
from .engine.comfy.files import existing_file, next_file, state_of
from .engine.comfy.model import check_space, patchable_blocks
from .engine.comfy.patch import attach
from .engine.families import check_blocks
from .engine.records import chart, plots
from .engine.records.notice import notice
from .engine.records.record import LiveRecord, Record, finished, load, save, to_csv
from .engine.records.summary import to_markdown
from .engine.rules.blocks import Selection
from .engine.run.observer import Probe
from .schema import advanced, branches_input, complaint, node_schema, tokens_input

Stability = io.Custom("STABILITY")
LatentOrImage = io.Custom("LATENT,IMAGE")
AnyRecord = Record | LiveRecord

CURVES, HEAT_MAP, IMAGES, SHEET = "curves", "heat map", "images", "sheet"


def theme_input() -> io.Combo.Input:
    return advanced(io.Combo.Input, "theme", options=list(THEMES), default=LIGHT, optional=True, tooltip="Colours of the figure.")


class StabilityProbe(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return node_schema(
            node_id="StabilityProbe",
            display_name="Stability Probe",
            description="Measures while sampling how settled self-attention is, block by block and step by step. "
            "Images stay bit for bit the same.",
            search_aliases=["Hopfield energy", "attention statistics", "stability"],
            not_idempotent=True,  # ComfyUI would otherwise run only one of two like probes
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model to look into, after all that changes it."),
                advanced(
                    io.Combo.Input, "measure_in", options=[VALUE_SPACE, INPUT_SPACE], default=VALUE_SPACE,
                    tooltip="Value space: what each head hands on; cheap. Input space: the paper's, on the "
                    "attention's input; many times slower.",
                ),
                advanced(io.Int.Input, "every_n_steps", default=1, min=1, max=1000, tooltip="Measure every n-th step only."),
                advanced(
                    io.String.Input, "blocks", default="all", tooltip="Where to measure; the same words as in the Circulation node."
                ),
                branches_input("Measure on the positive prompt's half of the model, the negative's, or both."),
                io.String.Input(
                    "label", default="", optional=True, tooltip="A name for this measurement in graphs and tables."
                ),
                tokens_input(
                    "Where image and text share one attention: measure the image's tokens among themselves, or all "
                    "of them. No difference on other models."
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the probe. Connect it to a sampler."),
                Stability.Output(
                    display_name="stability", tooltip="Filled while sampling. Connect it to Stability Readout."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, blocks: str | None = None) -> bool | str:
        return complaint(check_blocks, blocks)

    @classmethod
    def execute(
        cls, model, measure_in: str, every_n_steps: int, blocks: str, branches: str = BOTH, label: str = "", tokens: str = IMAGE_TOKENS
    ) -> io.NodeOutput:
        check_word("measure_in", measure_in, (VALUE_SPACE, INPUT_SPACE))
        check_word("branches", branches, BRANCHES)
        check_word("tokens", tokens, TOKENS)
        check_number("every_n_steps", every_n_steps, 1, 1000, whole=True)
        check_text("label", label)
        check_space(model, "measure_in", measure_in)
        selected = Selection.parse(blocks).of(patchable_blocks(model))
        live = LiveRecord(cls.hidden.unique_id)
        send = partial(events.send, events.STABILITY, cls.hidden.unique_id)
        return io.NodeOutput(attach(model, Probe(measure_in, every_n_steps, selected, branches, label, live, send, tokens)), live)


class StabilityReadout(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return node_schema(
            node_id="StabilityReadout",
            display_name="Stability Readout",
            description="Turns what a Stability Probe saw into a graph, a summary and a table.",
            search_aliases=["Hopfield energy graph", "attention graph", "stability graph"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            inputs=[
                Stability.Input("stability", tooltip="From a Stability Probe or Load Stability."),
                io.Combo.Input(
                    "plot", options=[SHEET, CURVES, HEAT_MAP, IMAGES], default=SHEET,
                    tooltip="Sheet: four measures at once. Curves: over steps, by stage. Heat map: block by step. "
                    "Images: how the images of a batch differ.",
                ),
                io.Combo.Input(
                    "measure", options=list(MEASURES), default=MEASURES[0], tooltip="What to plot, but for the sheet."
                ),
                io.MultiType.Input(
                    "after",
                    types=[io.Latent, io.Image],
                    optional=True,
                    tooltip="The latent of the sampler that used the probed model, or the image made of it: "
                    "it makes this node wait for the sampler, and says whose run to show.",
                ),
                io.Int.Input(
                    "run", default=0, min=0, max=1000, optional=True, tooltip="Which run to plot; 0 is the last one."
                ),
                theme_input(),
            ],
            outputs=[
                LatentOrImage.Output(display_name="after", tooltip="What came in as 'after', unchanged."),
                io.Image.Output(display_name="graph", tooltip="The figure, 1024 pixels wide."),
                io.String.Output(display_name="summary", tooltip="What the run was and what was seen, in words."),
                io.String.Output(display_name="data", tooltip="Every measured value, as CSV."),
                Stability.Output(
                    display_name="stability", tooltip="The finished record, for Stability Compare and Save Stability."
                ),
            ],
        )

    @classmethod
    def execute(cls, stability: AnyRecord, plot: str, measure: str, after=None, run: int = 0, theme: str = LIGHT) -> io.NodeOutput:
        check_word("plot", plot, (SHEET, CURVES, HEAT_MAP, IMAGES))
        check_word("measure", measure, MEASURES)
        check_number("run", run, 0, 1000, whole=True)
        check_word("theme", theme, THEMES)
        record = readout.record_shown(stability, cls.hidden.prompt, cls.hidden.unique_id)
        graph, summary, points = notice(readout.EMPTY), readout.EMPTY, chart.EMPTY
        if record.runs:
            if run > len(record.runs):
                raise ValueError(f"run is {run}, but the model was sampled {len(record.runs)} times.")
            chosen = record.runs[run - 1]
            draw = {CURVES: plots.curves, HEAT_MAP: plots.heat_map, IMAGES: plots.images}
            graph = plots.sheet(chosen, theme) if plot == SHEET else draw[plot](chosen, measure, theme)
            summary, points = to_markdown(record), chart.chart_data(chosen)
            if isinstance(stability, LiveRecord):
                points["probe"] = stability.probe  # which shows it too, where it has heard of no run itself
        shown = {**ui.PreviewImage(graph, cls=cls).as_dict(), "stability": [points]}
        return io.NodeOutput(after, graph, summary, to_csv(record), record, ui=shown)


class StabilityCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return node_schema(
            node_id="StabilityCompare",
            display_name="Stability Compare",
            description="Two to four stability records on one sheet: curves laid over each other, and what differs from the first.",
            search_aliases=["compare stability", "baseline against circulation"],
            is_output_node=True,
            inputs=[
                *(
                    Stability.Input(
                        f"stability_{number}",
                        display_name=f"stability {number}" + " (baseline)" * (number == 1),
                        optional=number > 2,
                        tooltip="From a Stability Readout or Load Stability. The first is what the others are compared with.",
                    )
                    for number in range(1, 5)
                ),
                theme_input(),
            ],
            outputs=[io.Image.Output(display_name="graph", tooltip="The sheet, 1024 pixels wide.")],
        )

    @classmethod
    def execute(
        cls, stability_1: AnyRecord, stability_2: AnyRecord, stability_3: AnyRecord | None = None, stability_4: AnyRecord | None = None,
        theme: str = LIGHT,
    ) -> io.NodeOutput:  # fmt: skip
        check_word("theme", theme, THEMES)
        given = enumerate((stability_1, stability_2, stability_3, stability_4), 1)
        records = {n: finished(f"stability_{n}", stability) for n, stability in given if n <= 2 or stability is not None}
        names = [record.runs[-1].info.name for record in records.values()]
        named = [f"record {n}: {name}" if names.count(name) > 1 else name for n, name in zip(records, names)]
        graph = plots.compare([record.labelled(name).runs[-1] for record, name in zip(records.values(), named)], theme)
        return io.NodeOutput(graph, ui=ui.PreviewImage(graph, cls=cls))


class SaveStability(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return node_schema(
            node_id="SaveStability",
            display_name="Save Stability",
            description="Writes a stability record to a .safetensors file in ComfyUI's output folder.",
            is_output_node=True,
            inputs=[
                Stability.Input("stability", tooltip="From a Stability Readout."),
                io.String.Input(
                    "filename_prefix",
                    default="stability/record",
                    tooltip="As in Save Image: folders and marks such as %year%, %month% and %day% work, a counter is added.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, stability: AnyRecord, filename_prefix: str) -> io.NodeOutput:
        record = finished("stability", stability)
        path, name = next_file(filename_prefix, ".safetensors")
        save(record, path)
        return io.NodeOutput(ui={"text": [f"Saved {name}"]})


class LoadStability(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return node_schema(
            node_id="LoadStability",
            display_name="Load Stability",
            description="Reads a stability record that Save Stability wrote, from ComfyUI's input or output folder.",
            inputs=[
                io.String.Input(
                    "file",
                    default="stability/record_00001_.safetensors",
                    tooltip="Name of a .safetensors file in the input or the output folder.",
                )
            ],
            outputs=[Stability.Output(display_name="stability", tooltip="The record. Connect it to Stability Readout or Compare.")],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load(existing_file(file)))

    @classmethod
    def validate_inputs(cls, file: str | None = None) -> bool | str:
        return complaint(existing_file, file)

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None) -> str | float:
        return math.nan if file is None else state_of(existing_file(file))
