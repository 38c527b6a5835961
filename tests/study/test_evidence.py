"""The evidence: its measures against known answers and other people's code, its tables against its files, and its headline once more."""

import re
import subprocess
import sys

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from support.host import ROOT

from circulation_demo.evidence import data, metrics, plan, report

RESULTS = ROOT / "demo" / "evidence" / "results"


def cloud(seed, count, dimensions=6, shift=0.0):
    return numpy.random.default_rng(seed).normal(shift, 1, (count, dimensions))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(12, 60), st.integers(12, 60), st.sampled_from([0.0, 0.5, 3.0]), st.integers(1, 5))
def test_precision_recall_density_and_coverage_are_those_of_prdc(seed, real, fake, shift, neighbours):
    import prdc

    a, b = cloud(seed, real), cloud(seed + 1, fake, shift=shift)
    ours = metrics.Sample(metrics.Manifold(a, neighbours), b).measures()
    theirs = prdc.compute_prdc(a, b, neighbours)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs)


def test_fid_of_two_gaussians():
    """Equal spread, means three apart: nine, but for the noise of a sample."""
    a, b = cloud(0, 4000), cloud(1, 4000)
    b[:, 0] += 3
    assert metrics.Sample(metrics.Manifold(a, 5), b).measures()["FID"] == pytest.approx(9, rel=0.05)
    assert metrics.Sample(metrics.Manifold(a, 5), a).measures()["FID"] == pytest.approx(0, abs=1e-8)


def test_measures_of_chosen_images_are_those_of_a_sample_of_them_alone():
    real, points, chosen = metrics.Manifold(cloud(0, 50), 3), cloud(1, 40), numpy.arange(3, 40, 2)
    assert metrics.Sample(real, points).measures(chosen) == pytest.approx(metrics.Sample(real, points[chosen]).measures())


def test_vendi_counts_kinds():
    """Four kinds of images at right angles to each other, however often each is repeated."""
    kinds = numpy.concatenate([numpy.eye(4), -numpy.eye(4)])
    real = metrics.Manifold(kinds, 2)
    assert metrics.Sample(real, numpy.repeat(numpy.eye(4), 5, axis=0)).measures()["Vendi"] == pytest.approx(4)
    assert metrics.Sample(real, numpy.repeat(numpy.eye(4)[:1], 5, axis=0)).measures()["Vendi"] == pytest.approx(1)


def test_spread_over_halves_is_the_standard_error():
    values = numpy.random.default_rng(0).normal(size=(200, 4)).mean(axis=1, keepdims=True).repeat(4, axis=1).ravel()
    drawn = [values[half].mean() for half in metrics.halves(200, 4, 2000)]
    assert numpy.std(drawn) == pytest.approx(values[::4].std(ddof=1) / numpy.sqrt(200), rel=0.1)


def test_spread_of_images_of_one_prompt():
    points = numpy.array([[0.0, 0], [3, 4], [7, 7], [7, 7]])
    assert metrics.spread(points, 2).tolist() == [5, 5, 0, 0]


def test_distributions_apart():
    """The statistic is Kolmogorov's and Smirnov's; swapping keeps what the two of a prompt share out of it."""
    draw = numpy.random.default_rng(0)
    prompt, a, b = draw.normal(0, 3, 400), draw.normal(size=400), draw.normal(size=400)
    difference, chance = metrics.apart(prompt + a, prompt + b)
    assert difference == pytest.approx(ks_2samp(prompt + a, prompt + b).statistic)
    assert chance > 0.05
    assert metrics.apart(prompt + a, prompt + b + 0.5)[1] < 0.05 < ks_2samp(prompt + a, prompt + b + 0.5).pvalue


def test_palette_validity():
    palette = numpy.array([[255, 0, 0], [0, 0, 0]])
    image = numpy.zeros((1, 2, 2, 3), numpy.uint8)
    image[0, 0, 0] = [243, 12, 12]
    image[0, 1, 1] = [242, 0, 0]
    assert metrics.palette_validity(image, palette).tolist() == [0.75]


def test_the_uses_of_held_out_avatars_share_none():
    uses = [data.REAL, data.OTHER_REAL, data.PROMPTS, data.MODEL_PROMPTS, data.CONTROLS]
    positions = [position for use in uses for position in range(use.start, use.stop)]
    assert len(positions) == len(set(positions)) and max(positions) < len(data.avatars("held_out").images)
    for size in (plan.FULL, plan.DEFAULT, plan.QUICK):
        assert size.sets * data.PROMPTS_PER_SET <= data.PROMPTS.stop - data.PROMPTS.start
        assert size.model_prompts <= data.MODEL_PROMPTS.stop - data.MODEL_PROMPTS.start
        assert 2 * size.sets * size.main_prompts * plan.PER_PROMPT <= data.CONTROLS.stop - data.CONTROLS.start


def test_the_plan_is_what_was_promised():
    """At least 1,000 images over three sets of seeds for the main settings, 256 for all others; both sides of alpha 1."""
    main = {setting for setting in plan.FULL.settings if setting.main}
    assert plan.FULL.sets >= 3 and plan.FULL.sets * plan.FULL.main_prompts * plan.PER_PROMPT >= 1000
    assert plan.FULL.prompts * plan.PER_PROMPT >= 256
    assert {plan.static(a, b, main=True) for a in (0.8, 0.95, 1.05, 1.2) for b in (3.0, 5.0)} < main
    assert len({setting.name for setting in plan.FULL.settings}) == len(plan.FULL.settings)


def test_tables_are_made_of_the_files_beside_them():
    for name, table in report.tables(RESULTS).items():
        assert (RESULTS / f"{name}.md").read_text(encoding="utf-8") == table, name


def test_evidence_md_holds_the_tables():
    text = report.EVIDENCE.read_text(encoding="utf-8")
    assert text.count("<!-- table:") >= 8
    assert report.with_tables(text, RESULTS) == text


def test_pictures_of_the_documents_are_there():
    for document in (report.EVIDENCE, ROOT / "demo" / "model" / "README.md"):
        for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).is_file(), link


@pytest.mark.timeout(600)
def test_the_headline_shows_again():
    """`python3 -m demo.evidence --quick` fails where Circulation has no effect or a claim of EVIDENCE.md does not show."""
    options = '{"size": "quick", "jobs": null, "publish": false}'
    done = subprocess.run([sys.executable, "-m", "circulation_demo.evidence.main", options], capture_output=True, text=True)
    assert done.returncode == 0 and "DOES NOT SHOW" not in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
