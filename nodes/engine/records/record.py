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
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..choices import MEASURES, NEGATIVE, ONE_PASS, POSITIVE
from ..phrases import Phrase
from ..text import got, shown

FORMAT = "circulation-stability"
VERSION = 2  # 1 did not say with which versions, seed and cfg a run was made
AXIS_BRANCHES = (POSITIVE, NEGATIVE)
ALL_STEPS, FIRST_STEP = "all steps", "first step"
TABLES = ("sigma", "step", "values")
PERCENT = "percent"  # a table that records of format 1 lack
MAX_BYTES = 256 << 20  # of a file
MAX_HEADER = 1 << 20
DAMAGED = "This stability record is damaged:"
_RULE = re.compile(r"alpha (\S+) beta (\S+)(.*?)(?= on )")
MAX_NODES, MAX_PROMPTS = 32, 8  # that a probe remembers, and of each of its nodes


class AttentionChange(NamedTuple):
    """How far attention was from the model's own in a run."""

    median: float  # of ‖out − plain‖ / ‖plain‖ over circulated calls and the images and branches in each
    measured_in: str  # ALL_STEPS in which a rule acted, or FIRST_STEP of them alone where a rule takes one call

    @property
    def sentence(self) -> Phrase:
        percent = 100 * self.median
        key = "changedInFirstStep" if self.measured_in == FIRST_STEP else "changed"
        return Phrase(key, percent=f"{percent:.{2 if percent < 99 else 3}g}")


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
    call: int | None = None  # of the node, where it runs over a list
    signature: str | None = None  # of the node and all it depends on
    attention_change: float | None = None  # how far circulated attention was from the model's own, as a share of its length
    attention_change_in: str | None = None  # ALL_STEPS or FIRST_STEP
    model_blocks: tuple[str, ...] | None = None  # all of the model, in execution order

    @property
    def name(self) -> str:
        """The label, or else what the rules are in short: 'alpha 1.2, beta 5', or 'off'."""
        return self.label or "; ".join(dict.fromkeys(filter(None, map(_in_short, self.rules)))) or "off"


@dataclass(frozen=True)
class RunRecord:
    info: RunInfo
    sigma: Tensor  # (evaluation,) float32
    step: Tensor  # (evaluation,) float32: place on the schedule, with a fraction between two of its sigmas
    values: Tensor  # (measure, evaluation, block, branch, image) float32
    percent: Tensor | None = None  # (evaluation,) float32: place in the sampling from 0 to 1, as start_percent counts it

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
    """What a probe hands on while its model has yet to be sampled. Filled when it is.

    A node that samples the same again in a later prompt replaces what it did before. Of each node the runs
    of some prompts are kept, because ComfyUI may take its result from the cache, and of so many nodes.
    """

    probe: str | None = None  # its node
    _runs: dict[str | None, dict[str | None, list[RunRecord]]] = field(default_factory=dict)  # by node and prompt

    def add(self, run: RunRecord) -> None:
        info = run.info
        earlier = self._runs.pop(info.node, {})  # the node that sampled last comes last
        prompts = {p: runs for p, runs in earlier.items() if p == info.prompt or runs[0].info.signature != info.signature}
        prompts.setdefault(info.prompt, []).append(run)
        self._runs[info.node] = _last(prompts, MAX_PROMPTS)
        self._runs = _last(self._runs, MAX_NODES)

    @property
    def nodes(self) -> set[str | None]:
        """Those that have sampled."""
        return set(self._runs)

    def of(self, signatures: Mapping[str | None, str] | None) -> Record:
        """The runs of these nodes with these signatures, or with none; where None, of every node those of its last prompt."""
        if signatures is None:
            return Record(tuple(run for prompts in self._runs.values() for run in list(prompts.values())[-1]))
        runs = (run for prompts in self._runs.values() for runs in prompts.values() for run in runs)
        return Record(tuple(r for r in runs if r.info.node in signatures and r.info.signature in (None, signatures[r.info.node])))


def _in_short(rule: str) -> str:
    """'alpha 1.2, beta 5' of a rule in words, as a record has it; '' of one that is off, and the whole of what is none of ours."""
    match = _RULE.match(rule)
    if not match:
        return rule
    alpha, beta, more = match.groups()
    kinds = [kind for kind in ("adaptive", ONE_PASS) if kind in more]
    return "" if "(off)" in more else ", ".join([f"alpha {alpha}", f"beta {beta}", *kinds])


def _last(entries: dict, number: int) -> dict:
    return dict(list(entries.items())[-number:])


def as_record(name: str, value: object) -> Record | LiveRecord:
    """Raises ValueError that names the input if its value is something else."""
    if not isinstance(value, (Record, LiveRecord)):
        raise ValueError(f"{name} is {got(value)} and must be a record: connect the stability output of one of the stability nodes.")
    return value


def finished(name: str, value: object) -> Record:
    """Raises ValueError that names the input if its value is no record with a run in it, or one that may get more of them."""
    record = as_record(name, value)
    if isinstance(record, LiveRecord):
        raise ValueError(
            f"{name} comes straight from a probe, which is empty until its model was sampled. "
            "Connect the stability output of a Stability Readout."
        )
    if not record.runs:
        raise ValueError(f"{name} is empty: nothing was sampled with its probe's model. What to do is in the Stability Readout's summary.")
    return record


def by_stage(stages: Iterable[str]) -> dict[str, list[int]]:
    """Positions of each stage in a list of blocks' stages."""
    positions: dict[str, list[int]] = {}
    for position, stage in enumerate(stages):
        positions.setdefault(stage, []).append(position)
    return positions


def rows(record: Record) -> Iterator[tuple]:
    """(run, label, evaluation, step, sigma, block, branch, image, *measures, attention change, where measured) of all that was measured."""
    for number, run in enumerate(record.runs, 1):
        measured = run.values.isfinite().any(dim=0).nonzero().tolist()
        for evaluation, block, branch, image in measured:
            yield (
                number,
                run.info.name,
                evaluation + 1,
                round(float(run.step[evaluation]) + 1, 4),
                float(run.sigma[evaluation]),
                run.info.blocks[block],
                AXIS_BRANCHES[branch],
                image + 1,
                *run.values[:, evaluation, block, branch, image].tolist(),
                *("" if value is None else value for value in (run.info.attention_change, run.info.attention_change_in)),
            )


def to_csv(record: Record) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    place = ["run", "label", "evaluation", "step", "sigma", "block", "branch", "image"]
    writer.writerow([*place, *MEASURES, "attention_change", "attention_change_in"])
    writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows(record))
    return text.getvalue()


def save(record: Record, path: str) -> None:
    """Raises ValueError if the record is larger than `load` takes it, or the file cannot be written."""
    tables = {f"{number}.{name}": getattr(run, name) for number, run in enumerate(record.runs) for name in (*TABLES, PERCENT)}
    tensors = {name: table.contiguous() for name, table in tables.items() if table is not None}
    if sum(table.nbytes for table in tensors.values()) > MAX_BYTES - MAX_HEADER:
        raise ValueError(f"This stability record is larger than {MAX_BYTES >> 20} MB: probe fewer blocks, or raise every_n_steps.")
    runs = json.dumps([asdict(run.info) for run in record.runs])
    try:
        save_file(tensors, path, {"format": FORMAT, "version": str(VERSION), "measures": json.dumps(MEASURES), "runs": runs})
    except (SafetensorError, OSError, ValueError) as error:  # no room, no permission, characters that no name can have
        raise ValueError(f"This stability record cannot be written: {shown(error, 200)}") from error


def load(path: str) -> Record:
    """Raises ValueError that says what is wrong with the file. Only of a record more than the header is read."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError("This .safetensors file is not a stability record. Choose one that Save Stability wrote.")
            if os.path.getsize(path) > MAX_BYTES:
                raise ValueError(f"This file is larger than the {MAX_BYTES >> 20} MB that a stability record can have.")
            version = metadata.get("version", "")
            if version.isdecimal() and int(version[:9]) > VERSION:
                raise ValueError(f"This stability record has format {shown(version)}, this pack reads up to {VERSION}: update the pack.")
            if version not in map(str, range(1, VERSION + 1)):
                raise ValueError(f"{DAMAGED} it holds no run of a known format.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"This is not a readable stability record: {shown(error, 200)}") from error
    try:
        infos = [_run_info(values) for values in json.loads(metadata["runs"])]
        runs = [
            replace(RunRecord(info, *(tensors[f"{n}.{name}"] for name in TABLES)), percent=tensors.get(f"{n}.{PERCENT}"))
            for n, info in enumerate(infos)
        ]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:  # of json.loads the last two
        raise ValueError(f"{DAMAGED} its description cannot be read ({shown(error)}).") from error
    if not runs:
        raise ValueError(f"{DAMAGED} it holds no run of a known format.")
    for run in runs:
        _check(run)
    return Record(tuple(runs))


def _run_info(values: dict[str, Any]) -> RunInfo:
    """From JSON, which has lists for tuples."""
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return RunInfo(**fields)


def _check(run: RunRecord) -> None:
    """Raise ValueError if what came from a file is not what the fields and axes of a run can hold."""
    for name, kind in get_type_hints(RunInfo).items():
        if not _fits(value := getattr(run.info, name), kind):
            raise ValueError(f"{DAMAGED} {name} cannot be {got(value)}.")
    evaluations, rest = run.values.shape[1:2], (*run.values.shape[:1], *run.values.shape[2:4])
    fit = run.values.ndim == 5 and rest == (len(MEASURES), len(run.info.blocks), len(AXIS_BRANCHES))
    places = [place for place in (run.sigma, run.step, run.percent) if place is not None]
    if not fit or any(place.shape != evaluations for place in places):
        raise ValueError(f"{DAMAGED} its tables do not fit its own description.")
    if any(table.dtype != torch.float32 for table in (run.values, *places)) or not all(place.isfinite().all() for place in places):
        raise ValueError(f"{DAMAGED} its tables hold what is no number.")


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of the kind that a field of RunInfo is declared with; numbers also by their size."""
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(item, get_args(kind)[0]) for item in value)
    if kinds := get_args(kind):
        return any(_fits(value, kind) for kind in kinds)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    return type(value) is kind and (not isinstance(value, int) or 0 <= value < 2**64)


def stack(evaluations: list[Tensor], blocks: int) -> Tensor:
    """(measure, block, branch, image) of each evaluation as one table; NaN for images an evaluation lacked."""
    images = max((values.shape[-1] for values in evaluations), default=0)
    table = torch.full((len(MEASURES), len(evaluations), blocks, len(AXIS_BRANCHES), images), torch.nan)
    for position, values in enumerate(evaluations):
        table[:, position, ..., : values.shape[-1]] = values
    return table
