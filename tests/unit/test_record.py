"""Records: what belongs to which run, tables, and files that are none."""

import dataclasses

import pytest
import safetensors.torch
import torch
from support.host import engine

record = engine("records.record")


def made(node, prompt, steps):
    info = record.RunInfo("", "value space", "SD15", "euler", steps, (1.0, 0.0), ("middle.0.0",), node=node, prompt=prompt)
    return record.RunRecord(info, torch.ones(1), torch.zeros(1), torch.zeros(5, 1, 1, 2, 1))


def test_a_later_prompt_replaces_the_runs_of_the_nodes_that_sample_again():
    live = record.LiveRecord()
    for run in (made("3", "a", 1), made("3", "a", 2), made("4", "a", 3)):
        live.add(run)
    assert [run.info.steps for run in live.of(None).runs] == [1, 2, 3]
    assert [run.info.steps for run in live.of({"3": "x", "9": "x"}).runs] == [1, 2]
    live.add(made("3", "b", 4))
    assert [run.info.steps for run in live.of(None).runs] == [3, 4]


def test_nan_is_told_as_null_and_left_out_of_the_table():
    values = torch.zeros(5, 2, 1, 2, 1)
    values[:, :, :, 1] = torch.nan
    run = record.RunRecord(made("1", "a", 2).info, torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0]), values)
    table = record.to_csv(record.Record((run,))).splitlines()
    assert len(table) == 3 and all("negative" not in line for line in table)


def damaged(path, **metadata):
    safetensors.torch.save_file({"0.values": torch.zeros(1)}, path, metadata)


@pytest.mark.parametrize("write, words", [
    (lambda path: path.write_bytes(b"not a file of this kind"), "not a readable stability record"),
    (lambda path: path.write_bytes(b""), "not a readable stability record"),
    (damaged, "not a stability record"),
    (lambda path: damaged(path, format="circulation-stability", version="99", runs="[]"), "has format 99"),
    (lambda path: damaged(path, format="circulation-stability", version="one", runs="[]"), "damaged"),
    (lambda path: damaged(path, format="circulation-stability", version="1", runs="[{]"), "damaged"),
    (lambda path: damaged(path, format="circulation-stability", version="1", runs='[{"steps": 3}]'), "damaged"),
    (lambda path: damaged(path, format="circulation-stability", version="1", runs="{}"), "damaged"),
], ids=range(8))  # fmt: skip
def test_a_file_that_is_no_record_is_refused_in_words(tmp_path, write, words):
    path = tmp_path / "record.safetensors"
    write(path)
    with pytest.raises(ValueError, match=words):
        record.load(str(path))


@pytest.mark.parametrize("rules, name", [
    ((), "off"),
    (("alpha 1.2 beta 5 on all",), "alpha 1.2, beta 5"),
    (("alpha 1 beta 5 (off) on middle",), "off"),
    (("alpha 1.2 beta 5 adaptive on all from 0 to 0.5",), "alpha 1.2, beta 5, adaptive"),
    (("alpha 1.2 beta 5 in one pass at alpha 2 on all positive only",), "alpha 1.2, beta 5, one pass"),
    (("alpha 1.2 beta 5 on input", "alpha 1 beta 3 (off) on all", "alpha -0.5 beta 3 on output"), "alpha 1.2, beta 5; alpha -0.5, beta 3"),
    (("alpha 1.2 beta 5 on input", "alpha 1.2 beta 5 on output"), "alpha 1.2, beta 5"),
    (("something that a later version writes",), "something that a later version writes"),
], ids=range(8))  # fmt: skip
def test_a_record_without_a_label_is_named_by_its_rules(rules, name):
    info = made("3", "a", 1).info
    assert dataclasses.replace(info, rules=rules).name == name
    assert dataclasses.replace(info, rules=rules, label="mine").name == "mine"
