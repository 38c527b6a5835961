"""What a probe measured: plain data, and its file form.

A record holds the runs of one model, one after another. A run's values have the axes

    measure      choices.MEASURES
    evaluation   each call of the sampler to the model that was measured, in order
    block        the probed self-attentions, in execution order
    branch       positive, negative
    image        of the batch (frames, for a video model)

and are NaN where nothing was measured: a branch that was not computed, a call that another node took.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..choices import MEASURES, NEGATIVE, POSITIVE

FORMAT = "circulation-stability"
VERSION = 2  # 1 did not say with which versions, seed and cfg a run was made
AXIS_BRANCHES = (POSITIVE, NEGATIVE)


@dataclass(frozen=True)
class RunInfo:
    """What the run was, in words and numbers."""

    label: str
    space: str
    family: str
    sampler: str
    steps: int
    schedule: tuple[float, ...]  # the sigmas handed to the sampler
    blocks: tuple[str, ...]
    rules: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what was declined or left out, and why
    complete: bool = True
    node: str | None = None  # the node that sampled, and the prompt it did so in
    prompt: str | None = None
    pack_version: str | None = None  # from here on None also where a record of format 1 does not say
    comfyui_version: str | None = None
    seed: int | None = None  # of the noise that is added
    cfg: float | None = None


@dataclass(frozen=True)
class RunRecord:
    info: RunInfo
    sigma: Tensor  # (evaluation,) float32
    step: Tensor  # (evaluation,) float32: place on the schedule, with a fraction between two of its sigmas
    values: Tensor  # (measure, evaluation, block, branch, image) float32

    def stages(self) -> dict[str, list[int]]:
        """Positions on the block axis by stage, in execution order."""
        return by_stage(block.partition(".")[0] for block in self.info.blocks)


@dataclass(frozen=True)
class Record:
    """Finished runs. What `Stability Readout`, a file or `LiveRecord.of` gives."""

    runs: tuple[RunRecord, ...] = ()

    def labelled(self, label: str) -> Record:
        return Record(tuple(replace(run, info=replace(run.info, label=label)) for run in self.runs))


@dataclass
class LiveRecord:
    """What a probe hands on while its model has yet to be sampled. Filled when it is."""

    probe: str | None = None  # its node
    _runs: list[RunRecord] = field(default_factory=list)

    def add(self, run: RunRecord) -> None:
        """A node that samples again in a later prompt replaces what it did in an earlier one."""
        node, prompt = run.info.node, run.info.prompt
        self._runs[:] = [r for r in self._runs if r.info.node != node or r.info.prompt == prompt]
        self._runs.append(run)

    def of(self, nodes: set[str] | None) -> Record:
        """The runs made by these nodes; by any where None."""
        return Record(tuple(run for run in self._runs if nodes is None or run.info.node in nodes))


def by_stage(stages: Iterable[str]) -> dict[str, list[int]]:
    """Positions of each stage in a list of blocks' stages."""
    positions: dict[str, list[int]] = {}
    for position, stage in enumerate(stages):
        positions.setdefault(stage, []).append(position)
    return positions


def rows(record: Record) -> Iterator[tuple]:
    """(run, label, evaluation, step, sigma, block, branch, image, *measures) of all that was measured."""
    for number, run in enumerate(record.runs, 1):
        measured = run.values.isfinite().any(dim=0).nonzero().tolist()
        for evaluation, block, branch, image in measured:
            yield (
                number,
                run.info.label,
                evaluation + 1,
                round(float(run.step[evaluation]) + 1, 4),
                float(run.sigma[evaluation]),
                run.info.blocks[block],
                AXIS_BRANCHES[branch],
                image + 1,
                *run.values[:, evaluation, block, branch, image].tolist(),
            )


def to_csv(record: Record) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "label", "evaluation", "step", "sigma", "block", "branch", "image", *MEASURES])
    writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows(record))
    return text.getvalue()


def save(record: Record, path: str) -> None:
    tensors = {
        f"{number}.{name}": getattr(run, name).contiguous()
        for number, run in enumerate(record.runs)
        for name in ("sigma", "step", "values")
    }
    runs = json.dumps([asdict(run.info) for run in record.runs])
    save_file(tensors, path, {"format": FORMAT, "version": str(VERSION), "measures": json.dumps(MEASURES), "runs": runs})


def load(path: str) -> Record:
    """Raises ValueError that says what is wrong with the file."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"This is not a readable stability record: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError("This .safetensors file is not a stability record. Choose one that Save Stability wrote.")
    version = metadata.get("version", "")
    if version.isdecimal() and int(version) > VERSION:
        raise ValueError(f"This stability record has format {version}, this pack reads up to {VERSION}: update the pack.")
    try:
        infos = [_run_info(values) for values in json.loads(metadata["runs"])]
        runs = [RunRecord(i, *(tensors[f"{n}.{name}"] for name in ("sigma", "step", "values"))) for n, i in enumerate(infos)]
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"This stability record is damaged: {error!r}") from error
    if version not in map(str, range(1, VERSION + 1)) or not runs:
        raise ValueError("This stability record is damaged: it holds no run of a known format.")
    for run in runs:
        expected = (len(MEASURES), len(run.sigma), len(run.info.blocks), len(AXIS_BRANCHES))
        if run.values.ndim != 5 or tuple(run.values.shape[:4]) != expected or run.step.shape != run.sigma.shape:
            raise ValueError("This stability record is damaged: its tables do not fit its own description.")
    return Record(tuple(runs))


def _run_info(values: dict[str, Any]) -> RunInfo:
    """From JSON, which has lists for tuples."""
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return RunInfo(**fields)


def stack(evaluations: list[Tensor], blocks: int) -> Tensor:
    """(measure, block, branch, image) of each evaluation as one table; NaN for images an evaluation lacked."""
    images = max((values.shape[-1] for values in evaluations), default=0)
    table = torch.full((len(MEASURES), len(evaluations), blocks, len(AXIS_BRANCHES), images), torch.nan)
    for position, values in enumerate(evaluations):
        table[:, position, ..., : values.shape[-1]] = values
    return table
