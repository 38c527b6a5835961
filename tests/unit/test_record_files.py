"""Record files and what holds them: whatever they are, they are refused in words or can be shown."""

import dataclasses
import json
import math
import os

import folder_paths
import pytest
import safetensors
import safetensors.torch
import torch
from support.host import engine, node, with_hidden

record = engine("records.record")


def made():
    info = record.RunInfo("", "value space", "SD15", "euler", 1, (1.0, 0.0), ("middle.0.0",), node="3", prompt="a")
    return record.RunRecord(info, torch.ones(1), torch.zeros(1), torch.zeros(5, 1, 1, 2, 1))


FIELDS = [field.name for field in dataclasses.fields(record.RunInfo)]
NUMBERS = [True, -1, 0, 1.5, 10**400, 2**63, math.nan, math.inf]
JSON = [None, *NUMBERS, "x", "\ud800$$", [], [1], ["x"], [math.nan], [None], [[1]], {}, {"a": 1}]


def file_of(path, info=(), version="2", tables=(), extra=()):
    """A record file whose one run has other fields or tables than `made()`."""
    run = made()
    tensors = {f"0.{name}": getattr(run, name) for name in record.TABLES}
    tensors.update({f"0.{name}": table for name, table in dict(tables).items()})
    runs = [{**dataclasses.asdict(run.info), **dict(info)}] if not isinstance(info, str) else info
    metadata = {"format": "circulation-stability", "version": version, "runs": info if isinstance(info, str) else json.dumps(runs)}
    safetensors.torch.save_file(tensors, path, {**metadata, **dict(extra)})
    return str(path)


@pytest.mark.parametrize("name", FIELDS)
def test_whatever_a_field_of_a_file_holds_it_is_damaged_or_can_be_shown(tmp_path, name):
    for value in JSON:
        path = file_of(tmp_path / "record.safetensors", {name: value})
        try:
            loaded = record.load(path)
        except ValueError as refused:
            assert str(refused).startswith("This stability record is damaged: ") and len(str(refused)) < 300
        else:
            (run,) = loaded.runs
            json.dumps([engine("records.chart").chart_data(run), dataclasses.asdict(run.info)], allow_nan=False)
            assert engine("records.summary").to_markdown(loaded) and record.to_csv(loaded)
            record.save(loaded, str(tmp_path / "again.safetensors"))
            assert record.load(str(tmp_path / "again.safetensors")).runs[0].info == run.info


DTYPES = (torch.int64, torch.bool, torch.half, torch.float8_e4m3fn, torch.complex64)


@pytest.mark.parametrize("tables", [
    dict(percent=torch.tensor([math.nan])), dict(percent=torch.zeros(2)), dict(percent=torch.zeros(1, dtype=torch.int32)),
    dict(sigma=torch.tensor([math.nan])), dict(sigma=torch.tensor([math.inf])), dict(step=torch.tensor([math.nan])),
    dict(sigma=torch.tensor(1.0)), dict(sigma=torch.ones(1, 1)), dict(step=torch.zeros(2)),
    dict(values=torch.zeros(1)), dict(values=torch.tensor(0.0)),
    *(dict(values=torch.zeros(5, 1, 1, 2, 1).to(dtype)) for dtype in DTYPES),
    dict(sigma=torch.ones(1, dtype=torch.float64)), dict(step=torch.zeros(1, dtype=torch.int32)),
], ids=str)  # fmt: skip
def test_tables_that_are_not_what_they_should_be_are_damaged(tmp_path, tables):
    with pytest.raises(ValueError, match="This stability record is damaged: its tables"):
        record.load(file_of(tmp_path / "record.safetensors", tables=tables))


DESCRIPTIONS = ["[" * 100_000, "9" * 5000, "[" + "9" * 5000 + "]", "{", '[{"label": []}]', "[1]", "null", '["x"]', '{"a": 1}']


@pytest.mark.parametrize("runs", DESCRIPTIONS, ids=range(9))
def test_a_description_that_cannot_be_read_is_damaged(tmp_path, runs):
    with pytest.raises(ValueError, match="This stability record is damaged: ") as refused:
        record.load(file_of(tmp_path / "record.safetensors", info=runs))
    assert len(str(refused.value)) < 300


class Closed:
    """A .safetensors file of which the header alone may be read."""

    def __init__(self, path, framework):
        self.file = safetensors.safe_open(path, framework)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def metadata(self):
        return self.file.metadata()


@pytest.mark.parametrize("metadata, words", [
    ({}, "is not a stability record"),
    ({"format": "circulation-stability"}, "larger than the 256 MB"),
])  # fmt: skip
def test_of_a_large_or_foreign_file_only_the_header_is_read(tmp_path, monkeypatch, metadata, words):
    monkeypatch.setattr(record, "safe_open", Closed)
    path, size = tmp_path / "large.safetensors", 2 * 2**30
    header = json.dumps({"__metadata__": metadata, "a": {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)  # a hole, which takes no disk
    with pytest.raises(ValueError, match=words):
        record.load(str(path))


def test_a_record_that_could_not_be_loaded_again_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "MAX_BYTES", record.MAX_HEADER)
    with pytest.raises(ValueError, match="larger than 1 MB: probe fewer blocks, or raise every_n_steps"):
        record.save(record.Record((made(),)), str(tmp_path / "x"))
    assert not list(tmp_path.iterdir())


# --- the files of the nodes


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"get_{name}_directory", lambda name=name: str(tmp_path / name))
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


def test_a_missing_file_is_refused_before_the_prompt_runs(folders):
    load = node("LoadStability")
    file_of(folders / "input" / "there.safetensors")
    assert load.validate_inputs("there.safetensors") is True
    assert load.validate_inputs() is True  # what comes through a link is not known yet
    assert load.validate_inputs("../elsewhere/x") == "There is no file '../elsewhere/x' in the input or the output folder."
    for wrong in ("", "none", "a\0b", "\ud800", str(folders / "elsewhere")):
        assert load.validate_inputs(wrong).startswith("There is no file ")


def test_a_file_that_changes_is_read_again_and_one_that_does_not_is_not_even_opened(folders, monkeypatch):
    load, path = node("LoadStability"), folders / "input" / "x.safetensors"
    path.write_bytes(b"1")
    with monkeypatch.context() as closed:
        closed.setattr("builtins.open", None)
        closed.setattr("io.open", None)
        first = load.fingerprint_inputs("x.safetensors")
        assert load.fingerprint_inputs("x.safetensors") == first
    os.utime(path, ns=(0, 1))
    assert load.fingerprint_inputs("x.safetensors") != first
    assert load.fingerprint_inputs() != load.fingerprint_inputs()  # through a link: read whatever it is


def test_links_in_the_folders_are_followed_as_comfyui_does_and_dots_never(folders):
    files = engine("comfy.files")
    file_of(folders / "elsewhere" / "x.safetensors")
    (folders / "output" / "disk").symlink_to(folders / "elsewhere")
    (folders / "input" / "link.safetensors").symlink_to(folders / "elsewhere" / "x.safetensors")
    linked = {
        "disk/x.safetensors": files.existing_file,
        "link.safetensors": files.existing_file,
        "disk/new": lambda prefix: node("SaveStability").execute(record.Record((made(),)), prefix),
    }
    for name, use in linked.items():
        if hasattr(folder_paths, "is_within_directory"):  # newer versions of ComfyUI follow no link that leads out
            with pytest.raises(ValueError, match="lies behind a link that leads out|leads out of the output folder"):
                use(name)
        else:
            use(name)
    for prefix in ("../elsewhere/y", str(folders / "elsewhere" / "y"), "a/../../elsewhere/y", "disk/../../elsewhere/y"):
        with pytest.raises(ValueError, match="leads out of the output folder"):
            files.next_file(prefix, "")
        with pytest.raises(ValueError, match="There is no file"):
            files.existing_file(prefix.replace("y", "x.safetensors"))


@pytest.mark.parametrize("prefix", ["x" * 300 + "/y", "x" * 300, "\ud800/y", "a/\ud800", "a\0/b", "a\0", "file/y"])
def test_a_name_that_no_file_can_have_is_refused_in_words(folders, prefix):
    (folders / "output" / "file").write_text("")
    words = r"^filename_prefix '.*' (cannot be used|leads out)|^This stability record cannot be written: "
    with pytest.raises(ValueError, match=words) as refused:
        node("SaveStability").execute(record.Record((made(),)), prefix)
    str(refused.value).encode()


# --- what is no record, and a run that is not there


@pytest.mark.parametrize("thing", [None, "a record", 5, [1], object()], ids=lambda thing: type(thing).__name__)
def test_something_else_than_a_record_is_refused_by_name(thing):
    good = record.Record((made(),))
    cls = with_hidden("StabilityReadout", UNIQUE_ID="2", PROMPT={})
    for name, call in {
        "stability": lambda: cls.execute(thing, "sheet", "energy"),
        "stability_1": lambda: node("StabilityCompare").execute(thing, good),
        "stability_2": lambda: node("StabilityCompare").execute(good, thing),
    }.items():
        with pytest.raises(ValueError, match=f"{name} is .* and must be a record: connect"):
            call()
    with pytest.raises(ValueError, match="stability is .* and must be a record"):
        node("SaveStability").execute(thing, "x")
    if thing is not None:
        with pytest.raises(ValueError, match="stability_4 is "):
            node("StabilityCompare").execute(good, good, None, thing)


@pytest.mark.parametrize("run, words", [
    (-1, "run is -1 and must be between 0"),
    (-2, "run is -2"),
    (3, "run is 3, but the model was sampled 2 times"),
    (10**400, "run is 1000"),
    (None, "run is None"),
    (0.5, "run is 0.5 and must be a whole number"),
])  # fmt: skip
def test_a_run_that_is_not_there_is_refused(run, words):
    cls = with_hidden("StabilityReadout", UNIQUE_ID="2", PROMPT={})
    with pytest.raises(ValueError, match=words):
        cls.execute(record.Record((made(),) * 2), "curves", "energy", run=run)
