"""`python3 -m tests.digests`: the same again gives the same digests, and anything that differs is named."""

import dataclasses

import folder_paths
import pytest
from digests import cases, comparison


def digests(case):
    return dict(cases.results(case))


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))


def test_a_run_has_the_same_digests_again_and_others_with_a_little_more_alpha():
    case = cases.Case("", "one level", (dict(alpha=1.2),), cases.VALUE_SPACE, steps=1)
    before = digests(case)
    assert comparison.differences(before, digests(case)) == []
    changed = comparison.differences(before, digests(dataclasses.replace(case, rules=(dict(alpha=1.2 + 1e-6),))))
    assert {"differs: image", "differs: attention outputs", "differs: record 0.values"} <= {*changed}
    assert not {"differs: log", "differs: record 0.sigma", "differs: record 0.blocks"} & {*changed}


def test_each_case_has_a_name_of_its_own():
    names = [case.name for case in cases.all_cases()]
    assert len({*names}) == len(names)


def test_what_is_missing_is_named_too_and_what_is_new_is_not():
    assert comparison.differences({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "0", "d": "4"}) == ["differs: b", "missing: c"]


def test_a_file_of_another_setting_is_refused_in_words(tmp_path):
    path = tmp_path / "digests.json"
    comparison.write(path, {"torch": "2.11", "threads": 1}, {"a": "1"})
    assert comparison.read(path, {"torch": "2.11", "threads": 1}) == {"a": "1"}
    with pytest.raises(ValueError, match=r"torch was 2\.11, is 2\.12"):
        comparison.read(path, {"torch": "2.12", "threads": 1})
