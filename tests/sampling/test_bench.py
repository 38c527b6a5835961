"""The benchmark runs, and the tables of docs/costs.md are what it found."""

import json
import os
import subprocess
import sys

import torch
from support.host import ROOT, engine

BENCH = ROOT / "tests" / "bench"
sys.path.append(str(BENCH))

import cases
import page
from shapes import SHAPES


def run(*arguments):
    done = subprocess.run([sys.executable, BENCH / "measure.py", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_smallest_shape_is_measured_in_every_way(tmp_path):
    file = tmp_path / "found.json"
    run("--shapes", "tiny", "--rounds", "1", "--steps", "1", "--threads", "1", "--json", file)
    result = json.loads(file.read_text(encoding="utf-8"))
    assert {"device", "torch", "backend", "threads"} <= result["machine"].keys()
    layer, measures, model = (
        {row["variant"]: row for row in result["rows"] if row["subject"] == subject}
        for subject in dict.fromkeys(row["subject"] for row in result["rows"])
    )
    assert {*cases.VARIANTS, *page.PUBLISHED} == layer.keys()
    assert {*cases.MODELS} == model.keys()
    assert {*cases.VARIANTS, *cases.MODELS} > {*page.COLUMNS}
    assert {"ours", "published"} == measures.keys()
    for row in result["rows"]:
        assert 0 < row["least"] <= row["ratio"] <= row["greatest"] and row["seconds"] > 0
    assert layer["value space"]["extra_bytes"] > 0
    assert "a test: 64 tokens" in page.measured_on(result)


def test_one_pass_by_the_fused_kernel_is_measured_where_there_is_one(monkeypatch):
    def variants(wanted):
        monkeypatch.setattr(engine("method.fast.fused"), "supports", lambda *tensors: os.environ["CIRCULATION_FUSED"] == "1" and wanted)
        return {*cases.layer(SHAPES["tiny"][0][0], 1, "cpu", torch.float32)}

    monkeypatch.setenv("CIRCULATION_FUSED", "0")
    assert variants(True) - variants(False) == {page.FUSED}


def test_the_published_layer_computes_what_input_space_computes():
    """η is over the whole batch there, which is one image here."""
    with torch.inference_mode():
        calls = cases.layer(SHAPES["tiny"][0][0], 1, "cpu", torch.float32)
        plain, published = calls["plain"](), calls["published"]()
        torch.testing.assert_close(calls["input space"](), published, rtol=1e-4, atol=1e-4)
        shape, x = SHAPES["tiny"][0][0], calls["plain"].args[0]
        rule = cases.CirculationSettings(*cases.STRONG, cases.choices.INPUT_SPACE, cases.AdaptiveSettings())
        adaptive = cases.under(calls["plain"], shape, x, rule, None)
        torch.testing.assert_close(adaptive(), calls["published, adaptive"](), rtol=1e-4, atol=1e-4)
        assert (plain - published).norm() > 1e-3 * plain.norm()


def test_the_tables_of_the_pages_are_made_of_the_results():
    texts = [path.read_text(encoding="utf-8") for path in page.PAGES]
    assert [mark[2] for text in texts for mark in page.MARK.finditer(text)] == ["short", "modelled", "counted", "assumed", "measured"]
    assert [page.with_tables(text) for text in texts] == texts
