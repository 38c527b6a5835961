"""The nodes that change sampling: Circulation, Circulation (Adaptive), and the schedule of their strength."""

from __future__ import annotations

import json

from comfy_api.latest import io
from comfy_execution.utils import get_executing_context

from .engine import families
from .engine.blocks import Selection
from .engine.circulation import (
    DEVIATION,
    ETA_OVER,
    FORMULAS,
    IMAGE,
    IMAGE_TOKENS,
    RESCALES,
    TOKENS,
    VALUE_SPACE,
    Adaptive,
    Circulation,
)
from .engine.patch import add
from .engine.rule import ALPHA_RANGE, BETA_RANGE, BOTH, BRANCHES, Rule
from .engine.schedule import Schedule
from .schema import schema

ScheduleType = io.Custom("CIRCULATION_SCHEDULE")

EVEN = json.dumps({"grid": [[1] * 12] * 8}, separators=(",", ":"))

# Saved workflows hold widget values by position: inputs are only ever added, at the end.


def _strength_inputs(alpha: float, beta: float) -> list:
    return [
        io.Model.Input("model", tooltip="The diffusion model whose self-attention is changed."),
        io.Float.Input(
            "alpha",
            default=alpha,
            min=ALPHA_RANGE[0],
            max=ALPHA_RANGE[1],
            step=0.005,
            tooltip="Strength of the circulation in self-attention. 1 is off. The paper works at 1.05; "
            "1.2 is its example of too much. Below 1 damps the circulation instead.",
        ),
        io.Float.Input(
            "beta",
            default=beta,
            min=BETA_RANGE[0],
            max=BETA_RANGE[1],
            step=0.05,
            tooltip="How far to go from the model's own attention towards the changed one, and past it: "
            "0 is off, 1 is the changed one, the paper uses 3 to 5.",
        ),
        io.Float.Input(
            "start_percent", default=0.0, min=0.0, max=1.0, step=0.001, tooltip="Where in sampling the effect starts."
        ),
        io.Float.Input(
            "end_percent", default=1.0, min=0.0, max=1.0, step=0.001, tooltip="Where in sampling the effect ends."
        ),
        io.String.Input(
            "blocks",
            default="all",
            tooltip="Where in the model: all, or a list such as input.4, input.4.1, middle, output.3-5, 0%-40% "
            "(depth), !middle (all but it). List Model Blocks says what a model has.",
        ),
    ]


def _scope_inputs() -> list:
    return [
        io.Combo.Input(
            "branches",
            options=list(BRANCHES),
            default=BOTH,
            optional=True,
            tooltip="Act on the positive prompt's half of the model, the negative's, or both (the paper's way).",
        ),
        io.Combo.Input(
            "rescale",
            options=list(RESCALES),
            default=VALUE_SPACE,
            optional=True,
            tooltip="Keeps each token's length after the blend. Value space: fast, measured on each head's values. "
            "Input space: the paper's own, measured on the attention's input, many times slower. Off: not at all.",
        ),
        ScheduleType.Input(
            "schedule",
            optional=True,
            tooltip="Strength over depth and time, from Circulation Schedule: a factor on (alpha - 1). Without it, 1 everywhere.",
        ),
        io.Combo.Input(
            "tokens",
            options=list(TOKENS),
            default=IMAGE_TOKENS,
            optional=True,
            tooltip="Where image and text share one attention (Flux, SD3, Qwen-Image ...): change only how the image attends "
            "to itself, or all of it. No difference on other models.",
        ),
    ]


def _outputs() -> list:
    return [io.Model.Output(display_name="model", tooltip="The model with Circulation. Connect it to a sampler.")]


def _patched(model, circulation, start_percent, end_percent, blocks, branches, schedule):
    if schedule is not None and not isinstance(schedule, Schedule):
        raise ValueError("schedule: connect the schedule output of a Circulation Schedule node.")
    there = families.blocks(model)
    families.check_space(model, "rescale", circulation.rescale)
    selection = Selection.parse(blocks)
    context = get_executing_context()
    node = context and context.node_id
    rule = Rule(circulation, selection, selection.of(there), start_percent, end_percent, branches, schedule, node)
    return io.NodeOutput(add(model, rule))


class CirculationControl(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="CirculationControl",
            display_name="Circulation",
            description="Trades fidelity against diversity by scaling the circulation (the skew part) of self-attention.",
            search_aliases=["skew attention", "Hopfield", "diversity", "fidelity", "coherence", "attention decomposition"],
            not_idempotent=True,  # ComfyUI would otherwise run only one of two like nodes, and only that one would hear of its runs
            inputs=[*_strength_inputs(alpha=1.05, beta=3.0), *_scope_inputs()],
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls,
        model,
        alpha,
        beta,
        start_percent,
        end_percent,
        blocks,
        branches=BOTH,
        rescale=VALUE_SPACE,
        schedule=None,
        tokens=IMAGE_TOKENS,
    ):
        circulation = Circulation(alpha, beta, rescale, tokens=tokens)
        return _patched(model, circulation, start_percent, end_percent, blocks, branches, schedule)


class CirculationAdaptive(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="CirculationAdaptive",
            display_name="Circulation (Adaptive)",
            description="Circulation whose strength follows how symmetric each attention call is (its index eta).",
            search_aliases=["skew attention", "Hopfield", "diversity", "symmetry index", "adaptive circulation"],
            not_idempotent=True,  # as above
            inputs=[
                *_strength_inputs(alpha=1.2, beta=5.0),
                io.Boolean.Input(
                    "adapt_alpha", default=True, tooltip="Let the symmetry index eta set alpha, call by call."
                ),
                io.Boolean.Input("adapt_beta", default=True, tooltip="Use beta times (1 - eta): less where attention is symmetric."),
                io.Combo.Input(
                    "formula",
                    options=list(FORMULAS),
                    default=DEVIATION,
                    tooltip="Deviation (the paper's): 1 + (alpha - 1) eta. Scale: alpha times eta, a much stronger change.",
                ),
                io.Combo.Input(
                    "eta_over",
                    options=list(ETA_OVER),
                    default=IMAGE,
                    tooltip="One eta per image, per head, or for the whole batch. Batch is the paper's way, but an image "
                    "then depends on its neighbours in the batch.",
                ),
                *_scope_inputs(),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls,
        model,
        alpha,
        beta,
        start_percent,
        end_percent,
        blocks,
        adapt_alpha,
        adapt_beta,
        formula,
        eta_over,
        branches=BOTH,
        rescale=VALUE_SPACE,
        schedule=None,
        tokens=IMAGE_TOKENS,
    ):
        adaptive = Adaptive(adapt_alpha, adapt_beta, formula, eta_over)
        circulation = Circulation(alpha, beta, rescale, adaptive, tokens)
        return _patched(model, circulation, start_percent, end_percent, blocks, branches, schedule)


class CirculationSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="CirculationSchedule",
            display_name="Circulation Schedule",
            description="Strength of Circulation over the depth of the model and the time of sampling, painted as a grid.",
            search_aliases=["circulation mask", "strength over time", "paint strength", "block weights", "layer schedule"],
            inputs=[
                io.String.Input(
                    "grid",
                    default=EVEN,
                    tooltip="Factors on (alpha - 1): 0 is off, 1 as set, 2 twice. A row for each part of the model's depth, first "
                    "blocks first; in it a number for each part of sampling, start first.",
                )
            ],
            outputs=[
                ScheduleType.Output(display_name="schedule", tooltip="Connect it to the schedule input of a Circulation node.")
            ],
        )

    @classmethod
    def validate_inputs(cls, grid=None):
        try:
            return grid is None or bool(Schedule.parse(grid))
        except ValueError as error:
            return str(error)

    @classmethod
    def execute(cls, grid):
        return io.NodeOutput(Schedule.parse(grid))
