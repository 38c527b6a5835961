"""The study of several models: knobs that are written out against our node, the placebo's direction, the arithmetic of models."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import matplotlib.image
import numpy
import pandas
import pytest
import torch
from circulation_demo.avatars.loader import FILE
from circulation_demo.evidence import metrics
from circulation_demo.evidence.report import MODELS
from circulation_demo.replication import analysis, blocks, doses, knobs, main, plan, report, sampling
from scipy import stats
from statsmodels.stats.power import TTestPower


def heads(seed, *shape):
    return torch.randn(*(shape or (2, 4, 64, 32)), generator=torch.Generator().manual_seed(seed))


def call():
    return heads(0), heads(1), heads(2)


def written_out(q, k, v, symmetric, skew):
    """The formula as it is, with all logits."""
    logits = q @ k.mT / q.shape[-1] ** 0.5
    return (symmetric * (logits + logits.mT) / 2 + skew * (logits - logits.mT) / 2).softmax(-1) @ v


def test_circulated_is_the_formula():
    q, k, v = call()
    torch.testing.assert_close(knobs.circulated(q, k, v, 1.7), written_out(q, k, v, 1, 1.7), rtol=1e-4, atol=1e-5)


def test_the_placebo_adds_a_skew_symmetric_matrix():
    q, k, v = call()
    rotation = knobs.rotation(1, ("input", 1), 4, 32)
    form = q @ rotation @ k.mT / 32**0.5
    expected = (q @ k.mT / 32**0.5 + 0.5 * (form - form.mT) / 2).softmax(-1) @ v
    torch.testing.assert_close(knobs.at_random(q, k, v, 1.5, rotation), expected, rtol=1e-4, atol=1e-5)


def test_rotations_are_from_the_haar_measure():
    """They keep lengths and have no share of the identity, which a bare QR has: about −0.1, a tenth of circulation itself."""
    drawn = torch.cat([knobs.rotation(draw, ("input", block), 4, 32) for draw in range(5) for block in range(10)])
    torch.testing.assert_close(drawn @ drawn.mT, torch.eye(32).expand_as(drawn), atol=1e-5, rtol=0)
    traces = drawn.diagonal(dim1=1, dim2=2).mean(-1)
    assert abs(float(traces.mean())) < 4 / 32 / len(drawn) ** 0.5
    assert float(torch.linalg.qr(heads(3, 200, 32, 32))[0].diagonal(dim1=1, dim2=2).mean()) < -0.05


def test_the_placebo_takes_a_step_as_long_in_another_direction():
    q, k, v = call()
    placebo = knobs.Placebo(1)
    plain, other = placebo.retrieve(q, k, v, {"block": ("input", 1)}, 1.2)
    torch.testing.assert_close((other - plain).norm(dim=-1), (knobs.circulated(q, k, v, 1.2) - plain).norm(dim=-1), rtol=1e-3, atol=1e-5)
    assert abs(placebo.cosine) < 0.1 and placebo.cosines == []


@pytest.fixture(scope="module")
def few():
    """Two images of one prompt, in four steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "STEPS", 4)
        yield tuple(values[:2] for values in sampling.asked(0, 1))


@pytest.fixture(scope="module")
def plain(few):
    return in_float32(plan.OFF, few)


def in_float32(row, few):
    """Images of a row without the noise of bfloat16, in which one level of a colour would say nothing."""
    return sampling.sampled(FILE, replace(row, dtype=torch.float32), *few)


def paper(q, k, v, options):
    return knobs.blended(knobs.attend(q, k, v), knobs.circulated(q, k, v, 1.2), 5.0)


def one_pass(q, k, v, options):
    return knobs.circulated(q, k, v, 2.0)


@pytest.mark.parametrize("attention", [paper, one_pass])
def test_what_is_written_out_is_what_the_node_does(few, plain, attention):
    node = knobs.circulation(alpha=1.2, beta=5.0, method=attention.__name__.replace("_", " "))
    by_node, by_hand = (in_float32(plan.Row("", change), few).astype(int) for change in (node, knobs.everywhere(attention)))
    assert abs(by_node - by_hand).max() <= 1 and abs(by_node - plain).max() > 20


OF_EACH_KIND = [plan.STRONGEST, plan.PLACEBO[0], *plan.GUIDANCE, *plan.KNOBS, *plan.EQUALISED, *plan.LATER]


@pytest.mark.parametrize("row", OF_EACH_KIND, ids=lambda row: row.slug)
def test_rounding_to_bfloat16_is_no_dose_of_its_own(few, row):
    images = sampling.sampled(FILE, row, *few)
    assert metrics.image_change(images, in_float32(row, few)).max() < 0.05


@pytest.mark.parametrize("knob", doses.KNOBS)
def test_each_knob_does_something_at_the_value_that_it_begins_with(few, plain, knob):
    row, _, value, _ = doses.KNOBS[knob]
    changed = in_float32(row(value), few)
    assert changed.shape == plain.shape == (2, 16, 16, 3) and abs(changed.astype(int) - plain).mean() > 0.2


def test_a_dose_is_found_where_it_grows_unevenly(monkeypatch):
    monkeypatch.setattr(doses, "image_change", lambda value: 0.05 * (value - 1) ** 1.5)
    value, dose = doses.find(0.0576, lambda value: value, 1.0, 1.3, 3.0)
    assert dose == pytest.approx(0.0576, rel=0.04) and value == pytest.approx(2.1, abs=0.05)
    assert doses.find(10.0, lambda value: value, 1.0, 1.3, 3.0)[0] == 3.0  # the most that it can give


@pytest.fixture
def model(tmp_path):
    """Three prompts, four images of each, of which the numbers are known: they change by strength times prompt."""
    for row, strength in ((plan.OFF, 0.0), *((row, row.strength) for row in plan.ABOVE)):
        prompt = numpy.arange(12) // 4
        pandas.DataFrame({"prompt": prompt, "mixture index": 0.3 + strength * prompt}).to_csv(tmp_path / f"{row.slug}.csv", index=False)
    return tmp_path


def test_slopes_and_differences_are_those_of_the_images(model):
    assert analysis.differences(model, plan.STRONGEST, "mixture index") == pytest.approx([0, 1, 2])
    assert analysis.slope(model, plan.ABOVE, "mixture index") == pytest.approx([0, 1, 2])


@pytest.mark.parametrize("nothing", [knobs.temperature(1.0), knobs.circulated_guidance(1.0, 1.5), knobs.equalised(0.0)])
def test_a_knob_at_rest_changes_nothing(few, plain, nothing):
    assert abs(in_float32(plan.Row("", nothing), few).astype(int) - plain).max() <= 1


def test_the_change_of_attention_in_each_block(few, monkeypatch):
    """Ten self-attentions; alpha 1 changes none of them, and twice the distance from it changes each more."""
    settings = {f"{alpha:g}": knobs.with_alpha(alpha) for alpha in (1, 1.2, 1.4)}
    monkeypatch.setattr(plan, "COMPARED", settings)
    nothing, little, more = (of_blocks for of_blocks in blocks.attention_changes(FILE, *few).values())
    assert len(nothing) == 10 and max(nothing.values()) < 1e-3
    assert all(1.3 * little[block] < more[block] < 3 * little[block] for block in nothing)


def test_rows_have_names_and_files_of_their_own():
    assert len({row.slug for row in plan.ROWS}) == len({row.name for row in plan.ROWS}) == len(plan.ROWS)
    assert plan.ROWS[0] is plan.OFF


@pytest.mark.parametrize("shifts", [(0.1, 0.3, 0.25, 0.6, 0.2), (0.2, 0.2, 0.2, 0.2, 0.2)], ids=["unlike", "alike"])
def test_models_are_combined_as_hartung_and_knapp_do(shifts):
    """A second implementation: DerSimonian and Laird's tau², Knapp and Hartung's interval with the t distribution."""
    generator = numpy.random.default_rng(0)
    of_models = [shift + generator.normal(0, 1, 126) for shift in shifts]
    if len({*shifts}) == 1:  # less unlike than chance would make them
        of_models = [values - 0.9 * (values.mean() - shifts[0]) for values in of_models]
    mean, half = by_hand(of_models)
    effect = analysis.combined(of_models)
    assert effect.mean == pytest.approx(mean) and effect.half == pytest.approx(half)
    assert effect.p == pytest.approx(2 * stats.t.sf(abs(mean) / half * stats.t.ppf(0.975, 4), 4))


def by_hand(of_models):
    """Mean and half of its 95 % interval over models, of each of which there are the values of 126 prompts."""
    freedom = len(of_models) - 1
    y, v = numpy.array([m.mean() for m in of_models]), numpy.array([m.var(ddof=1) / 126 for m in of_models])
    w = 1 / v
    q = (w * (y - (w * y).sum() / w.sum()) ** 2).sum()
    w = 1 / (v + max(0, (q - freedom) / (w.sum() - (w**2).sum() / w.sum())))
    mean = (w * y).sum() / w.sum()
    return mean, stats.t.ppf(0.975, freedom) * ((w * (y - mean) ** 2).sum() / freedom / w.sum()) ** 0.5


@pytest.mark.parametrize("measure, side", [("realism, pixels", "above 1"), ("spread, classifier", "below 1")])
def test_published_slopes_by_a_second_implementation(measure, side):
    """From the published CSVs, with numpy alone: each prompt's slope, then DerSimonian and Laird, Knapp and Hartung."""

    def values(seed, name):
        with (MODELS / seed / f"{name}.csv").open() as file:
            return numpy.array([float(row[measure]) for row in csv.DictReader(file)]).reshape(126, 4)

    sides = {"above 1": ("1.05-beta-3", "1.2-beta-3", "1.2-beta-5"), "below 1": ("0.95-beta-3", "0.8-beta-3", "0.8-beta-5")}
    strengths = dict(zip(sides[side], numpy.array([0.15, 0.6, 1]) * (1 if side == "above 1" else -1)))
    slopes = []
    for seed in sorted(folder.name for folder in MODELS.iterdir() if folder.is_dir()):
        of_prompts = [(values(seed, f"alpha-{name}") - values(seed, "off")).mean(axis=1) for name in strengths]
        slopes.append(numpy.linalg.lstsq(numpy.array([*strengths.values()])[:, None], numpy.stack(of_prompts), rcond=None)[0][0])
    mean, half = by_hand(slopes)
    estimate, *_ = cells(MODELS / "primary.md")[measure, side]
    assert [float(number.replace("−", "-")) for number in estimate.split(" ± ")] == pytest.approx([mean, half], abs=6e-5)


def test_the_smallest_effect_is_seen_in_four_of_five_studies():
    generator = numpy.random.default_rng(0)
    errors = generator.normal(0, 1, (4000, 5))
    noncentral = TTestPower().solve_power(nobs=5, alpha=0.05, power=0.8)
    assert (stats.ttest_1samp(errors + noncentral, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("tests", [1, 8])
def test_of_several_tests_the_smallest_effect_is_that_of_the_first_by_holm(tests):
    generator = numpy.random.default_rng(0)
    effect = analysis.combined([generator.normal(0, 1, 126) for _ in range(5)], tests)
    error = effect.half / stats.t.ppf(0.975, 4)
    means = effect.smallest / (error * 5**0.5) + generator.normal(0, 1, (4000, 5))
    assert (stats.ttest_1samp(means, 0, axis=1).pvalue < 0.05 / tests).mean() == pytest.approx(0.8, abs=0.03)


def test_holm_counts_how_many_are_asked():
    assert metrics.holm([0.001, 0.012, 0.04, 0.2]).tolist() == [True, True, False, False]


def test_models_that_show_too_little_of_what_was_asked_are_not_asked(tmp_path):
    for seed in plan.MODELS:
        (tmp_path / str(seed)).mkdir()
        off = pandas.DataFrame({"prompt": [0, 0], "prompt recognised": [0.95, 0.97 if seed < 5 else 0.83]})
        off.to_csv(tmp_path / str(seed) / "off.csv")
    with pytest.raises(ValueError, match=r"model 5 89\.0%, not 90%"):
        main.check(tmp_path)


@pytest.mark.parametrize("command", ["doses", "main"])
def test_a_command_finds_comfyui_by_itself(command):
    subprocess.run([sys.executable, "-c", f"import circulation_demo.replication.{command}"], check=True)


def test_results_of_another_model_are_not_taken(tmp_path):
    place = main.Place(1, tmp_path, tmp_path / "results")
    place.weights.write_bytes(b"trained")
    place.weights.with_suffix(".csv").write_text("step,loss")
    for _ in range(2):
        main.describe(place)
    about = json.loads((place.measures / "model.json").read_text())
    assert about["steps of training"] == plan.TRAINING_STEPS and about["weights"]
    place.weights.write_bytes(b"trained again")
    with pytest.raises(ValueError, match="another model"):
        main.describe(place)


def test_a_model_with_all_its_rows_is_neither_trained_nor_asked_again(study, tmp_path, monkeypatch):
    """Results may come from several machines: who has the rows of a model needs its weights no more."""
    monkeypatch.setattr(main, "MODELS", study)
    monkeypatch.setattr(main, "publish", lambda: None)
    monkeypatch.setattr(main, "pool", lambda jobs, threads: ThreadPool(1))
    assert main.main(SimpleNamespace(output=str(tmp_path), publish=True, jobs=1)) == 0
    assert not list(tmp_path.iterdir())


def test_a_row_is_measured_against_the_same_images_without_it(tmp_path, monkeypatch):
    """Into a table of images and a file for what only a set has; a placebo says how far it is from circulation."""
    monkeypatch.setattr(sampling, "STEPS", 2)
    monkeypatch.setattr(plan, "PROMPTS", 4)
    row = next(row for row in plan.PLACEBO)
    for each in (plan.OFF, row):
        sampling.measure(FILE, each.slug, tmp_path, tmp_path)
    of_row, plain = (pandas.read_csv(tmp_path / f"{each.slug}.csv") for each in (row, plan.OFF))
    assert len(of_row) == row.images == 16 and len(plain) == plan.OFF.images == 32
    assert of_row["image change"].gt(0).all() and "image change" not in plain
    images = [sampling.images(FILE, each, tmp_path)["images"][:16] for each in (row, plan.OFF)]
    assert of_row["image change"].to_numpy() == pytest.approx(metrics.image_change(*images), rel=1e-3)
    about, of_plain = (json.loads((tmp_path / f"{each.slug}.json").read_text()) for each in (row, plan.OFF))
    assert abs(about[plan.COSINE]) < 0.1 and about["digest"] != of_plain["digest"]
    assert about["sets"].keys() == of_plain["sets"].keys() and "precision, pixels" in about["sets"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Results of five models whose truth is known: typicality rises by 0.1 with strength above 1, circulated guidance has 0.02 fewer
    mixtures than alpha 0.8 and the placebo's guidance more, and one image in four loses a detail.
    """
    results, generator = tmp_path_factory.mktemp("results"), numpy.random.default_rng(0)
    mixtures = {row.slug: 0.1 + shift for row, shift in zip(plan.GUIDANCE, (-0.02, 0.02))}
    for seed in plan.MODELS:
        (results / str(seed)).mkdir()
        for row in plan.ROWS:
            prompts = numpy.arange(row.images) // 4
            image = numpy.arange(row.images) % 4
            table = {measure: 1 + generator.normal(0, 1e-3, row.images) for measure in plan.PRIMARY}
            table["realism, pixels"] += 0.1 * max(row.strength or 0, 0)
            table["mixture index"] += mixtures.get(row.slug, 0.1) - 0.1
            table["prompt recognised"] = 1 - (generator.random(row.images) < (row is not plan.OFF) / 4) / 9
            if row is not plan.OFF:
                table["image change"] = numpy.where(image < 2, 0.08, 0.01) * (1 + 0.1 * seed)
            pandas.DataFrame({"prompt": prompts, **table}).to_csv(results / str(seed) / f"{row.slug}.csv", index=False)
            (results / str(seed) / "blocks.json").write_text(json.dumps({name: {"a": 0.1, "b": 0.3} for name in plan.COMPARED}))
            (results / str(seed) / f"{row.slug}.json").write_text(json.dumps({plan.COSINE: -0.01 * seed} if row.placebo else {}))
    report.write(results)
    return results


def cells(path):
    """{first cells of a row: the others} of a table in Markdown."""
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in path.read_text().splitlines()[2:]]
    return {tuple(row[:2]): row[2:] for row in rows}


def test_what_is_there_is_shown_and_nothing_else(study):
    primary = cells(study / "primary.md")
    assert len(primary) == 8
    assert {asked for asked, (*_, shown, _) in primary.items() if shown == "yes"} == {
        ("realism, pixels", "above 1"), ("prompt recognised", "above 1"), ("prompt recognised", "below 1"),
    }  # fmt: skip
    slope, half = (float(number) for number in primary["realism, pixels", "above 1"][0].split(" ± "))
    assert slope == pytest.approx(0.1, abs=2 * half) and half < 0.01


def test_a_row_says_how_many_pictures_it_changes_and_how_unequal_models_are(study):
    rows = {name: [dose, *others] for (name, dose), others in cells(study / "rows.md").items()}
    assert rows.keys() == {row.name for row in plan.ROWS[1:]}
    dose, unequal, visible, lost, gained = rows[plan.STRONGEST.name][:5]
    assert (dose, unequal, visible, gained) == (f"{0.045 * 1.3:.4f}", "12 %", "50.0", "0.0")  # of 1.1 to 1.5: 0.158 / 1.3
    assert float(lost) == pytest.approx(25, abs=4)


def test_guidance_is_judged_by_what_is_better(study):
    verdicts = cells(study / "guidance.md")
    ours, placebo = (verdicts[row.name, "mixture index"][-1] for row in plan.GUIDANCE)
    assert (ours, placebo) == ("better", "worse")
    assert {verdict for (_, measure), (*_, verdict) in verdicts.items() if measure != "mixture index"} == {"not told apart"}


def test_other_knobs_stand_beside_ours_in_percent(study):
    rows = {name: others for (name, _), others in cells(study / "knobs.md").items()}
    assert len(rows) == 8
    typicality = rows[plan.STRONGEST.name][3]
    assert [float(number) for number in typicality.split(" ± ")] == pytest.approx([10, 0.02], abs=0.06)


def test_equal_strength_says_how_unequal_models_and_blocks_are(study):
    for of_models, change, of_blocks in cells(study / "equalised.md").values():
        assert (of_models, change, of_blocks) == ("12 %", "0.200", "71 %")


def test_rows_that_are_not_there_yet_are_left_out(study):
    file = study / "3" / f"{plan.ROUNDING.slug}.csv"
    kept = file.read_bytes()
    file.unlink()
    report.write(study)
    assert plan.ROUNDING.name not in {name for name, _ in cells(study / "rows.md")}
    file.write_bytes(kept)


def test_a_placebo_says_how_far_from_circulation_it_was(study):
    ((_, first), others) = next(iter(cells(study / "placebo.md").items()))
    assert [first, *others] == ["−0.010", "−0.020", "−0.030", "−0.040", "−0.050", "−0.030"]


@pytest.mark.parametrize("graph", ["pareto", "models"])
def test_graphs_are_drawn(study, graph):
    assert matplotlib.image.imread(study / f"{graph}.png").std() > 0.05
