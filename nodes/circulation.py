"""The nodes that change sampling: Circulation, Circulation (Adaptive), and the schedule of their strength."""

import json

from comfy_api.latest import io

from .engine import choices
from .engine.choices import BOTH, IMAGE_TOKENS, PAPER, VALUE_SPACE
from .engine.comfy.model import check_space, patchable_blocks
from .engine.comfy.patch import attach
from .engine.comfy.prompt import executing
from .engine.families import check_blocks
from .engine.method.settings import AdaptiveSettings, CirculationSettings
from .engine.rules.blocks import Selection
from .engine.rules.rule import Rule
from .engine.rules.schedule import Schedule
from .schema import advanced, branches_input, complaint, node_schema, tokens_input

ScheduleType = io.Custom("CIRCULATION_SCHEDULE")

EVEN = json.dumps({"grid": [[1] * 12] * 8}, separators=(",", ":"))

# Saved workflows hold widget values by position: inputs are only ever added, at the end.


def _slider(default: float, limits: tuple[float, float], step: float) -> dict[str, float]:
    return {"default": default, "min": limits[0], "max": limits[1], "step": step}


def _strength_inputs(alpha: float, beta: float) -> list:
    return [
        io.Model.Input("model", tooltip="The diffusion model whose self-attention is changed."),
        io.Float.Input(
            "alpha",
            **_slider(alpha, choices.ALPHA_RANGE, step=0.005),
            tooltip="Strength of the circulation in self-attention. 1 is off. The paper works at 1.05; "
            "1.2 is its example of too much. Below 1 damps the circulation instead.",
        ),
        io.Float.Input(
            "beta",
            **_slider(beta, choices.BETA_RANGE, step=0.05),
            tooltip="How far to go from the model's own attention towards the changed one, and past it: "
            "0 is off, 1 is the changed one, the paper uses 3 to 5.",
        ),
        *where_inputs(),
    ]


def where_inputs() -> list:
    return [
        advanced(io.Float.Input, "start_percent", **_slider(0.0, (0.0, 1.0), step=0.001), tooltip="Where in sampling the effect starts."),
        advanced(io.Float.Input, "end_percent", **_slider(1.0, (0.0, 1.0), step=0.001), tooltip="Where in sampling the effect ends."),
        advanced(
            io.String.Input,
            "blocks",
            default="all",
            tooltip="Where in the model: all, or a list such as input.4, input.4.1, middle, output.3-5, 0%-40% "
            "(depth), !middle (all but it). List Model Blocks says what a model has.",
        ),
    ]


def scope_inputs() -> list:
    return [
        branches_input("Act on the positive prompt's half of the model, the negative's, or both (the paper's way)."),
        advanced(
            io.Combo.Input,
            "rescale",
            options=list(choices.RESCALES),
            default=VALUE_SPACE,
            optional=True,
            tooltip="Keeps each token's length after the blend. Value space: fast, measured on each head's values. "
            "Input space: the paper's own, measured on the attention's input, many times slower. Off: not at all. "
            "No difference where the method is one pass, or beta is 1.",
        ),
        ScheduleType.Input(
            "schedule",
            optional=True,
            tooltip="Strength over depth and time, from Circulation Schedule: a factor on (alpha - 1). Without it, 1 everywhere.",
        ),
        tokens_input(
            "Where image and text share one attention (Flux, SD3, Qwen-Image ...): change only how the image attends "
            "to itself, or all of it. No difference on other models."
        ),
        io.Combo.Input(
            "method",
            options=list(choices.METHODS),
            default=choices.PAPER,
            optional=True,
            tooltip="Paper: the changed attention blended with the model's own, beta times. One pass: the changed attention alone, at "
            "alpha 1 + beta (alpha - 1). About half the extra time, less rounding, and a like but not the same picture.",
        ),
    ]


def _outputs() -> list:
    return [io.Model.Output(display_name="model", tooltip="The model with Circulation. Connect it to a sampler.")]


def patched(
    model, circulation: CirculationSettings, start_percent: float, end_percent: float, blocks: str,
    branches: str = BOTH, schedule: Schedule | None = None,
):  # fmt: skip
    """A MODEL with one more rule. Raises ValueError that names the input whose value is wrong."""
    if schedule is not None and not isinstance(schedule, Schedule):
        raise ValueError("schedule: connect the schedule output of a Circulation Schedule node.")
    available = patchable_blocks(model)
    check_space(model, "rescale", circulation.rescale)
    selection = Selection.parse(blocks)
    rule = Rule(circulation, selection, selection.of(available), start_percent, end_percent, branches, schedule, executing().node)
    return attach(model, rule)


class CirculationControl(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return node_schema(
            node_id="CirculationControl",
            display_name="Circulation",
            description="Scales the circulation (the skew part) of self-attention: the paper's way to balance fidelity and diversity.",
            search_aliases=["skew attention", "Hopfield", "diversity", "fidelity", "coherence", "attention decomposition"],
            not_idempotent=True,  # ComfyUI would otherwise run only one of two like nodes, and only that one would hear of its runs
            inputs=[*_strength_inputs(alpha=1.05, beta=3.0), *scope_inputs()],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, blocks: str | None = None) -> bool | str:
        return complaint(check_blocks, blocks)

    @classmethod
    def execute(
        cls, model, alpha: float, beta: float, start_percent: float, end_percent: float, blocks: str,
        branches: str = BOTH, rescale: str = VALUE_SPACE, schedule: Schedule | None = None, tokens: str = IMAGE_TOKENS, method: str = PAPER,
    ) -> io.NodeOutput:  # fmt: skip
        circulation = CirculationSettings(alpha, beta, rescale, tokens=tokens, method=method)
        return io.NodeOutput(patched(model, circulation, start_percent, end_percent, blocks, branches, schedule))


class CirculationAdaptive(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return node_schema(
            node_id="CirculationAdaptive",
            display_name="Circulation (Adaptive)",
            description="Circulation whose strength follows how symmetric each attention call is (its index eta).",
            search_aliases=["skew attention", "Hopfield", "diversity", "fidelity", "symmetry index", "adaptive circulation"],
            not_idempotent=True,  # as above
            inputs=[
                *_strength_inputs(alpha=1.2, beta=5.0),
                advanced(io.Boolean.Input, "adapt_alpha", default=True, tooltip="Let the symmetry index eta set alpha, call by call."),
                advanced(
                    io.Boolean.Input, "adapt_beta", default=True,
                    tooltip="Use beta times (1 - eta): less where attention is symmetric.",
                ),
                advanced(
                    io.Combo.Input,
                    "formula",
                    options=list(choices.FORMULAS),
                    default=choices.DEVIATION,
                    tooltip="Deviation (the paper's): 1 + (alpha - 1) eta. Scale: alpha times eta, a much stronger change.",
                ),
                advanced(
                    io.Combo.Input,
                    "eta_over",
                    options=list(choices.ETA_OVER),
                    default=choices.IMAGE,
                    tooltip="One eta per image, per head, or for the whole batch. Batch is the paper's way, but an image "
                    "then depends on its neighbours in the batch.",
                ),
                *scope_inputs(),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, blocks: str | None = None) -> bool | str:
        return complaint(check_blocks, blocks)

    @classmethod
    def execute(
        cls, model, alpha: float, beta: float, start_percent: float, end_percent: float, blocks: str,
        adapt_alpha: bool, adapt_beta: bool, formula: str, eta_over: str,
        branches: str = BOTH, rescale: str = VALUE_SPACE, schedule: Schedule | None = None, tokens: str = IMAGE_TOKENS, method: str = PAPER,
    ) -> io.NodeOutput:  # fmt: skip
        adaptive = AdaptiveSettings(adapt_alpha, adapt_beta, formula, eta_over)
        circulation = CirculationSettings(alpha, beta, rescale, adaptive, tokens, method=method)
        return io.NodeOutput(patched(model, circulation, start_percent, end_percent, blocks, branches, schedule))


class CirculationSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return node_schema(
            node_id="CirculationSchedule",
            display_name="Circulation Schedule",
            description="Strength of Circulation over the depth of the model and the time of sampling, painted as a grid.",
            search_aliases=["strength over time", "paint strength", "block weights", "layer schedule"],
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
    def validate_inputs(cls, grid: str | None = None) -> bool | str:
        return complaint(Schedule.parse, grid)

    @classmethod
    def execute(cls, grid: str) -> io.NodeOutput:
        return io.NodeOutput(Schedule.parse(grid))
