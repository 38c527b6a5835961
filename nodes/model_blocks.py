"""The node that lists what a model consists of: List Model Blocks."""

from __future__ import annotations

from collections.abc import Sequence

from comfy_api.latest import io, ui

from .engine.comfy.model import attentions, model_name
from .engine.phrases import Phrase
from .engine.rules.blocks import Block
from .schema import node_schema


class ModelBlocks(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return node_schema(
            node_id="ModelBlocks",
            display_name="List Model Blocks",
            description="Lists the attentions of a model by the names that 'blocks' takes, and says which of them "
            "Circulation can change and why not the others.",
            search_aliases=["block names", "model layers", "attention heads"],
            is_output_node=True,
            inputs=[io.Model.Input("model", tooltip="The diffusion model to look into.")],
            outputs=[io.String.Output(display_name="blocks", tooltip="The list, in the order in which the model computes.")],
        )

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        try:
            blocks = attentions(model)
        except ValueError as error:
            return io.NodeOutput(str(error), ui=ui.PreviewText(str(error)))
        text = table(model_name(model), blocks)
        rows = [[str(block), block.heads, block.head_dim, left_alone.data() if left_alone else ""] for block, left_alone in blocks]
        return io.NodeOutput(text, ui={**ui.PreviewText(text).as_dict(), "model_blocks": [rows]})


def table(name: str, blocks: Sequence[tuple[Block, Phrase | None]]) -> str:
    """What a model is, and its attentions as a Markdown table."""
    lines = [
        f"{name}: {sum(not left_alone for _, left_alone in blocks)} attentions that Circulation can change",
        "",
        _row("block", "heads", "head size", "can be changed"),
        _row("---", "---:", "---:", "---"),
    ]
    lines += [_row(block, block.heads, block.head_dim, f"no: {left_alone}" if left_alone else "yes") for block, left_alone in blocks]
    return "\n".join(lines)


def _row(block: object, heads: object, head_dim: object, patchable: str) -> str:
    return f"| {block!s:18} | {heads!s:>5} | {head_dim!s:>9} | {patchable} |"
