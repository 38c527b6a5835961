"""How much circulation has changed attention: what the node, the record and its table say, against the same ratio computed outside."""

import csv
import io
import re

import pytest
import torch
from support import models, transformers
from support.host import engine, made_by, patch, probe
from support.sampling import sample

record = engine("records.record")


@pytest.fixture
def outside(monkeypatch):
    """By evaluation ‖out − plain‖ / ‖plain‖ of every row of every changed call in float64, over all tokens."""
    run, ratios = engine("run.run").Run, {}
    attention = run.attention

    def compared(self, call):
        plain, out = call.plain(), attention(self, call)
        if not torch.equal(out, plain):
            new, own = (call.heads_of_output(t).double() for t in (out, plain))
            of_rows = (new - own).flatten(1).norm(dim=1) / own.flatten(1).norm(dim=1)
            ratios.setdefault(len(self.outcome._evaluations), []).append(of_rows[of_rows > 0])
        return out

    monkeypatch.setattr(run, "attention", compared)
    return ratios


def median(ratios):
    return float(torch.cat([rows for calls in ratios for rows in calls]).quantile(0.5))


def percent_in(line):
    return float(re.search(r"Attention changed by (\S+) %", line).group(1)) / 100


PAPER = [
    dict(alpha=1.2, beta=3.0),
    dict(alpha=0.8, beta=2.0, rescale="off"),
    dict(alpha=1.2, beta=3.0, rescale="input space (paper)"),
    dict(alpha=1.2, beta=3.0, branches="negative", blocks="middle, output"),
    dict(alpha=1.2, beta=5.0, node_id="CirculationAdaptive"),
]


@pytest.mark.parametrize("inputs", PAPER, ids=str)
def test_the_papers_method_is_measured_at_every_step(inputs, statuses, outside):
    probed, live = probe(made_by("1", models.build("sd15"), **inputs))
    sample(probed, steps=3, batch=2)
    (run,) = live.of(None).runs
    assert len(outside) == 3
    assert run.info.attention_change == pytest.approx(median(outside.values()), rel=1e-4)
    assert run.info.attention_change_in == "all steps"
    assert percent_in(statuses["1"]) == pytest.approx(run.info.attention_change, rel=0.05) and "first step" not in statuses["1"]
    first = next(csv.DictReader(io.StringIO(record.to_csv(live.of(None)))))
    assert float(first["attention_change"]) == pytest.approx(run.info.attention_change, rel=1e-5)
    assert first["attention_change_in"] == "all steps"


@pytest.mark.parametrize("inputs", [dict(alpha=1.05, beta=3.0, method="one pass"), dict(alpha=1.2, beta=1.0)], ids=str)
def test_one_call_is_measured_at_its_first_step_and_says_so(inputs, statuses, outside):
    probed, live = probe(made_by("1", models.build("sd15"), start_percent=0.3, **inputs))
    sample(probed, steps=4)
    (run,) = live.of(None).runs
    first = min(outside)
    assert first > 1 and len(outside) > 1
    assert run.info.attention_change == pytest.approx(median([outside[first]]), rel=1e-4)
    assert run.info.attention_change_in == "first step"
    assert re.search(r"Attention changed by \S+ % in the first step\.", statuses["1"])


def test_image_and_text_in_one_attention(statuses, outside):
    name = next(name for name in ("flux", "lumina2", "sd3") if name in transformers.PRESENT)
    probed, live = probe(made_by("1", transformers.build(name), alpha=1.2, beta=3.0, tokens="all"))
    transformers.sample(probed, name)
    (run,) = live.of(None).runs
    assert run.info.attention_change == pytest.approx(median(outside.values()), rel=1e-4)


def test_each_node_has_its_own_number_and_the_record_that_of_all(statuses):
    weak = made_by("1", models.build("sd15"), alpha=1.02, beta=1.5, branches="positive")
    both = made_by("2", weak, alpha=1.5, beta=3.0, branches="negative")
    probed, live = probe(both)
    sample(probed)
    (run,) = live.of(None).runs
    assert percent_in(statuses["1"]) < run.info.attention_change < percent_in(statuses["2"])


def test_nothing_is_said_where_nothing_was_changed(statuses):
    probed, live = probe(made_by("1", models.build("sd15"), alpha=1.0))
    sample(probed)
    (run,) = live.of(None).runs
    assert run.info.attention_change is None and "Attention changed" not in statuses["1"]
    assert next(csv.DictReader(io.StringIO(record.to_csv(live.of(None)))))["attention_change"] == ""


def test_a_saved_record_keeps_it(tmp_path):
    probed, live = probe(patch(models.build("sd15"), alpha=1.2))
    sample(probed)
    record.save(live.of(None), str(tmp_path / "record.safetensors"))
    (run,), (loaded,) = live.of(None).runs, record.load(str(tmp_path / "record.safetensors")).runs
    assert loaded.info == run.info and loaded.info.attention_change > 0
