"""The node that lays settings side by side: Comparison Sheet."""

from __future__ import annotations

import numpy
import torch
from comfy_api.latest import io

from .engine.choices import check_number
from .engine.comfy.pictures import preview
from .engine.comparison import draw
from .engine.comparison.measure import batches_of, by_change, labels_of, measured, scores_of, stability_of
from .engine.comparison.table import note, to_csv, to_markdown
from .engine.records.record import finished
from .engine.text import got
from .schema import advanced, node_schema
from .stability import Stability

CELL_RANGE = (64, 1024)
PREVIEW = 1024  # pixels of the longer side of a cell's picture in the browser


class ComparisonSheet(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return node_schema(
            node_id="ComparisonSheet",
            display_name="Comparison Sheet",
            description="Lays the images of several settings side by side, each row with its label, and measures what changed against "
            "the first and how different the images of each are.",
            search_aliases=["xy plot", "compare images", "grid", "contact sheet", "circulation sheet", "diversity", "Vendi score"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="A list of batches: a row for each. The first is what the others are compared with."),
                io.String.Input(
                    "labels", default="", multiline=True,
                    tooltip="A label for each row: a list, as Circulation Sweep gives it, or one on each line.",
                ),
                Stability.Input(
                    "stability", optional=True, tooltip="Records of Stability Readout, one for each row: their means go into the table."
                ),
                io.ClipVision.Input(
                    "clip_vision", optional=True,
                    tooltip="Diversity is then measured between what this model sees, and not between pixels.",
                ),
                io.Float.Input(
                    "scores", optional=True, force_input=True,
                    tooltip="Numbers of your own, from any scorer: one for each row, or one for each image.",
                ),
                io.Int.Input(
                    "cell", default=384, min=CELL_RANGE[0], max=CELL_RANGE[1], step=8, optional=True,
                    tooltip="Longer side of an image on the sheet, in pixels. Less where the sheet would be larger than 4096.",
                ),
                io.Boolean.Input(
                    "frame_changes", default=False, optional=True,
                    tooltip="Draw a line around what differs from the first row by more than the threshold.",
                ),
                advanced(
                    io.Boolean.Input, "sort_columns", default=False, optional=True,
                    tooltip="Put the images first that change most. Numbers stay theirs."
                ),
                advanced(
                    io.Boolean.Input, "difference_row", default=False, optional=True,
                    tooltip="Below each row, its differences from the first row, 4 times as bright.",
                ),
                advanced(
                    io.Float.Input, "threshold", default=0.1, min=0.0, max=1.0, step=0.01, optional=True,
                    tooltip="From which difference on a pixel counts as changed, for frame_changes; 1 is black against white.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="The sheet: up to 4096 pixels a side."),
                io.Image.Output(display_name="curve", tooltip="Diversity against the scores, or against change where there are none."),
                io.String.Output(display_name="table", tooltip="The measures of each row as a Markdown table."),
                io.String.Output(display_name="data", tooltip="Every measured value, as CSV."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, images: list, labels: list, stability=None, clip_vision=None, scores=None, cell=(384,), frame_changes=(False,),
        sort_columns=(False,), difference_row=(False,), threshold=(0.1,),
    ) -> io.NodeOutput:  # fmt: skip
        cell, threshold = _one("cell", cell), _one("threshold", threshold)
        check_number("cell", cell, *CELL_RANGE, whole=True)
        check_number("threshold", threshold, 0, 1)
        framed, sorted_by_change, with_difference = (
            bool(_one(name, value))
            for name, value in (("frame_changes", frame_changes), ("sort_columns", sort_columns), ("difference_row", difference_row))
        )
        options = draw.Options(cell, framed, with_difference, threshold)
        batches = batches_of(images)
        names = labels_of(labels, len(batches))
        given = _given(scores), _given(stability)
        scored = scores_of(given[0], batches) if given[0] else None
        stable = stability_of([finished("stability", record) for record in given[1]], len(batches)) if given[1] else None
        layout = draw.layout(batches, names, [""] * len(batches), options)
        embed = _embedding(clip_vision[0]) if _given(clip_vision) else None
        settings = measured(batches, names, scored, stable, embed)
        order = by_change(settings) if sorted_by_change else list(range(len(layout.lefts)))
        layout = draw.layout(batches, names, ["baseline", *map(note, settings[1:])], options)
        canvas = draw.sheet(batches, order, layout, options)
        shown = {"images": preview([canvas], cls.hidden), "comparison": [_message(batches, names, order)]}
        sheet = torch.from_numpy(numpy.array(canvas)[None]).float().div_(255)
        return io.NodeOutput(sheet, draw.curve(settings), to_markdown(settings), to_csv(settings), ui=shown)


def _given(values) -> list:
    return [value for value in values or () if value is not None]


def _one(name: str, values):
    if len(values) != 1:
        raise ValueError(f"{name} is a list of {len(values)} values and must be one.")
    return values[0]


def _embedding(clip_vision):
    if not hasattr(clip_vision, "encode_image"):
        raise ValueError(f"clip_vision is {got(clip_vision)} and must be a CLIP vision model.")
    return lambda images: clip_vision.encode_image(images)["image_embeds"]


def _message(batches: list, labels: list[str], order: list[int]) -> dict:
    """What the browser needs to compare any cell with the baseline's; cells lie as on the sheet."""
    cells = [preview(draw.scaled(batch, place, PREVIEW, enlarge=False) for place in order) for batch in batches]
    return {"labels": labels, "baseline": 0, "columns": len(order), "cells": cells}
