"""The nodes that try several settings: Circulation Sweep, and Circulation Grid, which also samples."""

from typing import Any

import torch
from comfy_api.latest import io

from .circulation import patched, scope_inputs, where_inputs
from .engine.choices import BOTH, IMAGE_TOKENS, PAPER, VALUE_SPACE, check_number, check_word
from .engine.comfy.grid import SAMPLERS, SCHEDULERS, check_link, expanded, progress
from .engine.comfy.pictures import preview
from .engine.comparison.draw import scaled
from .engine.comparison.settings import OFF, check, settings
from .engine.families import check_blocks
from .engine.method.settings import CirculationSettings
from .engine.rules.schedule import Schedule
from .schema import advanced, complaint, node_schema
from .sheet import ComparisonSheet

# start_percent, end_percent and blocks of off, whatever those of the other settings are
EVERYWHERE: dict[str, Any] = dict(start_percent=0.0, end_percent=1.0, blocks="all")
ALIASES = ["xy plot", "xyz plot", "compare", "comparison", "grid", "sweep", "parameter sweep", "find alpha", "fidelity", "diversity"]


def _setting_inputs() -> list:
    return [
        io.String.Input(
            "alpha",
            default="1, 1.05, 1.1, 1.2",
            tooltip="Which alphas: numbers with commas between, or ranges such as 0.9:1.2:0.05 (step 0.05) and 0.9...1.2 x5 "
            "(five of them). At most 64 settings in all.",
        ),
        io.String.Input("beta", default="3", tooltip="Which betas, written in the same way. Each alpha is tried with each beta."),
    ]


def _scope_inputs() -> list:
    inputs = {input.id: input for input in scope_inputs()}
    return [
        *(inputs[name] for name in ("method", "branches", "rescale", "schedule", "tokens")),
        advanced(
            io.Boolean.Input,
            "baseline",
            default=True,
            optional=True,
            tooltip="Puts the model as it is, labelled off, before all others: what they are compared with.",
        ),
    ]


def _complaint(alpha: str | None, beta: str | None, baseline: bool | None, blocks: str | None) -> bool | str:
    found = check(alpha, beta, bool(baseline))
    return complaint(check_blocks, blocks) if found is True else found


class CirculationSweep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return node_schema(
            node_id="CirculationSweep",
            display_name="Circulation Sweep",
            description="Circulation with several alphas and betas at once: ComfyUI runs the sampler behind it once for each. "
            "Comparison Sheet shows what came of them.",
            search_aliases=ALIASES,
            not_idempotent=True,  # as Circulation
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model whose self-attention is changed."),
                *_setting_inputs(),
                *where_inputs(),
                *_scope_inputs(),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", is_output_list=True, tooltip="The model with each setting in turn. Connect it to a sampler."
                ),
                io.String.Output(
                    display_name="label", is_output_list=True, tooltip="What each setting is called. Connect it to Comparison Sheet."
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, alpha: str | None = None, beta: str | None = None, baseline: bool | None = True, blocks: str | None = None
    ) -> bool | str:
        return _complaint(alpha, beta, baseline, blocks)

    @classmethod
    def execute(
        cls, model, alpha: str, beta: str, start_percent: float, end_percent: float, blocks: str,
        method: str = PAPER, branches: str = BOTH, rescale: str = VALUE_SPACE, schedule: Schedule | None = None, tokens: str = IMAGE_TOKENS,
        baseline: bool = True,
    ) -> io.NodeOutput:  # fmt: skip
        models, labels = [], []
        for setting in settings(alpha, beta, baseline):
            circulation = CirculationSettings(*setting, rescale, tokens=tokens, method=method)
            if setting == OFF:
                models.append(patched(model, circulation, **EVERYWHERE))
            else:
                models.append(patched(model, circulation, start_percent, end_percent, blocks, branches, schedule))
            labels.append(circulation.label)
        return io.NodeOutput(models, labels)


MOST_SEEDS = 64
SEEDS, MOST_STEPS, MOST_CFG = 2**64, 10000, 100.0  # that KSampler takes
SHEET_OPTIONS = ("clip_vision", "cell", "frame_changes", "sort_columns", "difference_row", "threshold")
THUMBNAIL = 256  # pixels of the longer side of a cell's picture while the grid is being made


def _sheet_inputs() -> list:
    return [input for input in ComparisonSheet.define_schema().inputs if input.id in SHEET_OPTIONS]


def _as_link(input):
    """The input gets its link in the place of what comes through it: so the nodes of the grid have a place in the cache."""
    input.extra_dict = {**input.extra_dict, "rawLink": True}
    return input


def _inner(**fields) -> io.Schema:
    """Of a node that only a grid has in it: no search finds it."""
    return node_schema(is_deprecated=True, is_dev_only=True, **fields)


class CirculationGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        links = [
            io.Model.Input("model", tooltip="The diffusion model whose self-attention is changed."),
            io.Conditioning.Input("positive", tooltip="What the images should show."),
            io.Conditioning.Input("negative", tooltip="What the images should not show."),
            io.Latent.Input("latent", tooltip="The latent that each cell starts from."),
            io.Vae.Input("vae", tooltip="Makes images of the latents."),
        ]
        options = [*where_inputs(), *_scope_inputs(), *_sheet_inputs()]
        for input in options:
            input.optional = True
        return node_schema(
            node_id="CirculationGrid",
            display_name="Circulation Grid",
            description="In the place of KSampler: samples with several alphas, betas and seeds, and shows all on a labelled sheet. "
            "Each cell is cached by itself: one more alpha samples one more row.",
            search_aliases=ALIASES,
            is_output_node=True,
            enable_expand=True,
            not_idempotent=True,  # as Circulation
            inputs=[
                *map(_as_link, links),
                *_setting_inputs(),
                io.Int.Input(
                    "seed", default=0, min=0, max=SEEDS - 1, control_after_generate=False,
                    tooltip="The seed of the first column. It stays as it is after a run, so that what is sampled stays too.",
                ),
                io.Int.Input(
                    "seeds", default=3, min=1, max=MOST_SEEDS, tooltip="How many seeds: seed, seed + 1 and so on, a column for each."
                ),
                io.Int.Input("steps", default=20, min=1, max=MOST_STEPS, tooltip="Sampling steps of each cell."),
                io.Float.Input(
                    "cfg", default=8.0, min=0.0, max=MOST_CFG, step=0.1, round=0.01, tooltip="Classifier-free guidance, as in KSampler."
                ),
                io.Combo.Input(
                    "sampler_name", options=SAMPLERS, default="euler", tooltip="The algorithm, as in KSampler."
                ),
                io.Combo.Input(
                    "scheduler", options=SCHEDULERS, default="normal",
                    tooltip="How the noise goes down from step to step, as in KSampler.",
                ),
                io.Float.Input(
                    "denoise", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="Below 1 some of the latent stays, as in KSampler."
                ),
                *(_as_link(input) if input.id in ("schedule", "clip_vision") else input for input in options),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="All cells in one picture: a row for each setting, with its label."),
                io.Image.Output(display_name="curve", tooltip="Diversity against change, setting by setting."),
                io.String.Output(display_name="table", tooltip="The measures of each setting as a Markdown table."),
                io.String.Output(display_name="data", tooltip="The measures of each setting, as CSV."),
                io.Image.Output(
                    display_name="images", is_output_list=True, tooltip="A batch for each setting, with an image for each seed."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(
        cls, alpha: str | None = None, beta: str | None = None, baseline: bool | None = True, blocks: str | None = None
    ) -> bool | str:
        return _complaint(alpha, beta, baseline, blocks)

    @classmethod
    def execute(
        cls, model, positive, negative, latent, vae, alpha: str, beta: str, seed: int, seeds: int,
        steps: int, cfg: float, sampler_name: str, scheduler: str, denoise: float,
        start_percent: float = 0.0, end_percent: float = 1.0, blocks: str = "all", method: str = PAPER, branches: str = BOTH,
        rescale: str = VALUE_SPACE, schedule=None, tokens: str = IMAGE_TOKENS, baseline: bool = True, **sheet_options,
    ) -> io.NodeOutput:  # fmt: skip
        for name, link in dict(model=model, positive=positive, negative=negative, latent=latent, vae=vae).items():
            check_link(name, link)
        check_number("seed", seed, 0, SEEDS - 1, whole=True)
        check_number("seeds", seeds, 1, MOST_SEEDS, whole=True)
        check_number("steps", steps, 1, MOST_STEPS, whole=True)
        check_number("cfg", cfg, 0, MOST_CFG)
        check_number("denoise", denoise, 0, 1)
        check_word("sampler_name", sampler_name, tuple(SAMPLERS))
        check_word("scheduler", scheduler, tuple(SCHEDULERS))
        where = dict(start_percent=start_percent, end_percent=end_percent, blocks=blocks, branches=branches, rescale=rescale, tokens=tokens)
        if schedule is not None:
            where["schedule"] = schedule
        rows = {
            CirculationSettings(*setting, method=method).label: dict(
                alpha=setting[0], beta=setting[1], **(EVERYWHERE if setting == OFF else {**where, "method": method})
            )
            for setting in settings(alpha, beta, baseline)
        }
        sampler = dict(positive=positive, negative=negative, latent_image=latent, steps=steps, cfg=cfg)
        sampler |= dict(sampler_name=sampler_name, scheduler=scheduler, denoise=denoise)
        columns = [(seed + number) % SEEDS for number in range(seeds)]
        graph, outputs = expanded(model, rows, columns, sampler, vae, sheet_options)
        return io.NodeOutput(*outputs, expand=graph)


class CirculationGridCell(io.ComfyNode):
    """Shows a cell on the grid as soon as it is there: ComfyUI sends what an inner node shows to the node that expanded into it."""

    @classmethod
    def define_schema(cls):
        return _inner(
            node_id="CirculationGridCell",
            display_name="Circulation Grid: a cell",
            description="Part of Circulation Grid.",
            is_output_node=True,  # ComfyUI does first what is in front of an output node: so cell comes after cell
            inputs=[
                io.Image.Input("image"),
                io.Model.Input("model"),  # right in front of an output node too: so all settings are checked before the first is sampled
                io.String.Input("label"),
                *map(io.Int.Input, ("seed", "row", "column", "rows", "columns")),
            ],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, model, label: str, seed: int, row: int, column: int, rows: int, columns: int) -> io.NodeOutput:
        progress(row * columns + column + 1, of=rows * columns)
        pictures = preview(scaled(image, place, THUMBNAIL, enlarge=False) for place in range(len(image)))
        cell = dict(label=label, seed=seed, row=row, column=column, rows=rows, columns=columns, pictures=pictures)
        return io.NodeOutput(ui={"cell": [cell]})


class CirculationGridRows(io.ComfyNode):
    """The images of all cells, row by row, as a list of batches; and once more as one value, which is what a grid can hand on."""

    @classmethod
    def define_schema(cls):
        return _inner(
            node_id="CirculationGridRows",
            display_name="Circulation Grid: its rows",
            description="Part of Circulation Grid.",
            is_input_list=True,  # a cell can be a list of images itself, where a grid gets lists
            inputs=[io.Int.Input("columns")],  # and an image for each cell, row by row
            outputs=[io.Image.Output("images", is_output_list=True), io.Custom("*").Output("rows")],
        )

    @classmethod
    def execute(cls, columns: list[int], **cells: list[torch.Tensor]) -> io.NodeOutput:
        images, count = list(cells.values()), columns[0]
        rows = [torch.cat([image for cell in images[row : row + count] for image in cell]) for row in range(0, len(images), count)]
        return io.NodeOutput(rows, rows)
