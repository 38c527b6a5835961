"""The nodes that try several settings: Circulation Sweep, and Circulation Grid, which also samples."""

from comfy_api.latest import io

from .circulation import patched, scope_inputs, where_inputs
from .engine.choices import BOTH, IMAGE_TOKENS, PAPER, VALUE_SPACE
from .engine.comparison.settings import OFF, check, settings
from .engine.method.settings import CirculationSettings
from .engine.rules.schedule import Schedule
from .schema import node_schema

ALIASES = ["xy plot", "xyz plot", "compare", "comparison", "grid", "sweep", "circulation", "parameter sweep", "find alpha"]


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
        io.Boolean.Input(
            "baseline",
            default=True,
            optional=True,
            tooltip="Puts the model as it is, labelled off, before all others: what they are compared with.",
        ),
    ]


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
    def validate_inputs(cls, alpha: str | None = None, beta: str | None = None, baseline: bool | None = True) -> bool | str:
        return check(alpha, beta, bool(baseline))

    @classmethod
    def execute(
        cls, model, alpha: str, beta: str, start_percent: float, end_percent: float, blocks: str,
        method: str = PAPER, branches: str = BOTH, rescale: str = VALUE_SPACE, schedule: Schedule | None = None, tokens: str = IMAGE_TOKENS,
        baseline: bool = True,
    ) -> io.NodeOutput:  # fmt: skip
        models, labels = [], []
        for setting in settings(alpha, beta, baseline):
            circulation = CirculationSettings(*setting, rescale, tokens=tokens, method=method)
            # off is off everywhere, whatever another Circulation node in front does
            where = (0.0, 1.0, "all", BOTH, None) if setting == OFF else (start_percent, end_percent, blocks, branches, schedule)
            models.append(patched(model, circulation, *where))
            labels.append(circulation.label)
        return io.NodeOutput(models, labels)
