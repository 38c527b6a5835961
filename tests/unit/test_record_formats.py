"""Records of earlier formats load in every field and every value.

`record-format-1-*.safetensors` were saved by version 0.1.0 of the pack, and `record-format-1.json` says what was in them, NaN as null.
"""

import csv
import json
import math

import folder_paths
import pytest
import torch
from safetensors import safe_open
from support.host import ROOT, node, with_hidden

GOLDEN = ROOT / "tests" / "golden"
FORMAT_1 = json.loads((GOLDEN / "record-format-1.json").read_text(encoding="utf-8"))


@pytest.fixture
def load(monkeypatch, tmp_path):
    """What LoadStability gives for a file of that name, and what a readout of it hands on."""
    monkeypatch.setattr(folder_paths, "input_directory", str(GOLDEN))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))

    def loaded(name):
        (record,) = node("LoadStability").execute(f"record-format-1-{name}.safetensors").result
        readout = with_hidden("StabilityReadout", UNIQUE_ID="2", PROMPT={})
        _, _, summary, data, record = readout.execute(record, "images", "energy").result
        return summary, data, record

    return loaded


# Records without a label
NAMED_BY_RULES = {"input-space": "alpha 0.5, beta 2; alpha 1.2, beta 5, adaptive", "flux": "alpha 1.05, beta 3"}


@pytest.mark.parametrize("name", FORMAT_1)
def test_a_record_of_format_1_is_read_as_it_was(load, name):
    summary, data, _ = load(name)
    assert summary == FORMAT_1[name]["summary"]
    table = {}
    for row in csv.DictReader(data.splitlines()):
        table[row["run"], row["evaluation"], row["block"], row["branch"], row["image"]] = row
    expected = dict(cells(FORMAT_1[name]))
    assert table.keys() == expected.keys()
    for place, (label, numbers) in expected.items():
        assert table[place]["label"] == (label or NAMED_BY_RULES[name])
        assert {key: float(table[place][key]) for key in numbers} == pytest.approx(numbers, rel=1e-5)


def cells(record):
    """What each row of the table holds, by its place in the record: the label, and all its numbers by column."""
    for number, run in enumerate(record["runs"], 1):
        values = torch.tensor(nan(run["values"]))
        _, evaluations, blocks, branches, images = values.shape
        for evaluation in range(evaluations):
            at = {"step": run["step"][evaluation] + 1, "sigma": run["sigma"][evaluation]}
            for block in range(blocks):
                for branch in range(branches):
                    for image in range(images):
                        measured = values[:, evaluation, block, branch, image].tolist()
                        if not all(map(math.isnan, measured)):
                            place = (number, evaluation + 1, run["info"]["blocks"][block], ("positive", "negative")[branch], image + 1)
                            yield tuple(map(str, place)), (run["info"]["label"], at | dict(zip(record["measures"], measured)))


@pytest.mark.parametrize("name", FORMAT_1)
def test_a_record_of_format_1_that_is_saved_again_keeps_every_field_and_every_bit(load, name, tmp_path):
    *_, record = load(name)
    node("SaveStability").execute(record, "again")
    (path,) = tmp_path.glob("again*.safetensors")
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["measures"]) == FORMAT_1[name]["measures"]
        infos = json.loads(file.metadata()["runs"])
        assert len(infos) == len(FORMAT_1[name]["runs"])
        for number, (info, run) in enumerate(zip(infos, FORMAT_1[name]["runs"])):
            assert {key: info[key] for key in run["info"]} == run["info"]
            for tensor in ("sigma", "step", "values"):
                expected = torch.tensor(nan(run[tensor]))
                torch.testing.assert_close(file.get_tensor(f"{number}.{tensor}"), expected, rtol=0, atol=0, equal_nan=True)


def nan(numbers):
    """A nested list with NaN where JSON has null."""
    return [nan(part) for part in numbers] if isinstance(numbers, list) else math.nan if numbers is None else numbers
