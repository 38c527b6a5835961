"""The evidence: its measures against known answers and other people's code, its tables against its files, and its headline once more."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy
import pandas
import pytest
import torch
from circulation_demo.avatars import loader
from circulation_demo.digest import digest
from circulation_demo.evidence import data, evaluate, main, metrics, pairs, plan, provenance, report, sampling, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, spearmanr
from support.host import ROOT, comfy_nodes

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


def test_results_hold_what_the_plan_promises():
    """At least 1,000 different images over three sets of seeds for the main settings, 256 for all others; both sides of alpha 1."""
    images = pandas.read_csv(RESULTS / "images.csv")
    assert not images.duplicated(["setting", "seed set", "prompt", "image"]).any()
    fields = pandas.read_csv(RESULTS / "settings.csv", index_col="setting")
    main_settings, rest = (set(fields.index[fields["main"] == main]) for main in (True, False))
    counts, sets = images["setting"].value_counts(), images.groupby("setting")["seed set"].nunique()
    assert counts[list(main_settings)].min() >= 1000 and sets[list(main_settings)].min() >= 3
    assert counts[list(rest & set(counts.index))].min() >= 256
    for beta in (3, 5):
        assert {0.8, 0.95, 1.05, 1.2} <= set(fields["alpha"][fields["main"] & (fields["beta"] == beta)])


def test_results_say_what_each_setting_was(tmp_path):
    """`settings.csv` has the fields of every setting that another file names, and they are those of the plan."""
    evaluate.write_settings(tmp_path / "settings.csv", (*plan.SETTINGS, *plan.PREDICTION))
    assert (tmp_path / "settings.csv").read_text() == (RESULTS / "settings.csv").read_text()
    fields = pandas.read_csv(RESULTS / "settings.csv")
    for name in ("images", "sets", "regimes", "prediction"):
        assert set(pandas.read_csv(RESULTS / f"{name}.csv")["setting"]) <= set(fields["setting"]), name


def test_no_two_settings_have_one_name():
    names = {setting.name: setting for setting in (*plan.PREDICTION, *plan.SETTINGS)}
    for setting in (*plan.PREDICTION, *plan.SETTINGS):
        assert replace(setting, main=False) == replace(names[setting.name], main=False)


def test_tables_are_made_of_the_files_beside_them():
    for name, table in report.tables(RESULTS).items():
        assert (RESULTS / f"{name}.md").read_text(encoding="utf-8") == table, name


@pytest.mark.parametrize("document", report.DOCUMENTS, ids=lambda path: path.stem)
def test_documents_hold_the_tables(document):
    text = document.read_text(encoding="utf-8")
    assert text.count("<!-- table:") >= 2
    assert report.with_tables(text) == text


def test_the_page_is_one_page():
    """At most 700 words, three tables of eight rows and four pictures."""
    text = (ROOT / "EVIDENCE.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    prose = re.sub(r"<!--.*?-->|!?\[|\]\([^)]*\)|^\|.*\n", " ", text, flags=re.MULTILINE)
    assert len(prose.split()) <= 700
    assert len(tables) <= 3 and max(table.count("\n") - 2 for table in tables) <= 8
    assert len(re.findall(r"!\[", text)) <= 4


def test_pictures_of_the_documents_are_there():
    for document in (*report.DOCUMENTS, ROOT / "demo" / "model" / "README.md"):
        for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).is_file(), link


def test_provenance_is_written_beside_results(tmp_path):
    known = provenance.provenance({"torch": torch.__version__})
    provenance.write(tmp_path, known)
    written = json.loads((tmp_path / "provenance.json").read_text(encoding="utf-8"))
    assert written == known and None not in (written["date"], written["pack"], written["python"], written["torch"])
    assert set(known) <= set(json.loads((RESULTS / "provenance.json").read_text(encoding="utf-8")))


class Study:
    """A study of one prompt, in whose folder empty files stand for images."""

    settings = baseline, circulation = plan.BASELINE, plan.static(1.2, 5.0)

    def __init__(self, folder):
        self.folder, self.model = folder, sampling.Model()

    def samples(self, settings=settings):
        size = plan.Size("test", settings, sets=1, main_prompts=1, prompts=1, model_prompts=1, prediction_images=1)
        return data.Samples(self.folder / digest(self.model.conditions()), size)

    def to_sample(self, settings=settings):
        return tuple(arguments[1] for _, task, arguments in main.missing(self.samples(settings)) if task is sampling.sample)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """All of whose images are there."""
    study = Study(tmp_path_factory.mktemp("images"))
    samples = study.samples()
    samples.folder.mkdir()
    assert study.to_sample() == study.settings
    for _, _, arguments in main.missing(samples):
        arguments[0].touch()
    return study


def test_images_are_sampled_once(study):
    assert main.missing(study.samples()) == []


@pytest.mark.parametrize(("name", "value"), [("STEPS", 13), ("CFG", 1.6), ("SAMPLER", "euler")])
def test_images_of_another_sampler_are_sampled_again(study, monkeypatch, name, value):
    monkeypatch.setattr(sampling, name, value)
    assert study.to_sample() == study.settings


@pytest.mark.parametrize("field", [{"alpha": 1.25}, {"blocks": "middle"}, {"rescale": "off"}, {"end_percent": 0.5}])
def test_images_of_a_setting_that_changed_are_sampled_again(study, field):
    changed, renamed = replace(study.circulation, **field), replace(study.circulation, label="another name")
    assert study.to_sample((study.baseline, changed)) == (changed,)
    assert study.to_sample((study.baseline, renamed)) == ()


@pytest.mark.parametrize(("node", "argument", "value"), [("CirculationControl", "beta", 4.999), ("StabilityProbe", "every_n_steps", 2)])
def test_images_of_nodes_that_do_something_else_are_sampled_again(study, monkeypatch, node, argument, value):
    """A node that does what it says with another number stands for any change of the pack's code."""
    original = comfy_nodes.NODE_CLASS_MAPPINGS[node]

    def execute(cls, *arguments, **inputs):
        return original.execute.__func__(cls, *arguments, **{**inputs, argument: value})

    changed = type(node, (original,), {"execute": classmethod(execute)})
    monkeypatch.setitem(comfy_nodes.NODE_CLASS_MAPPINGS, node, changed)
    assert study.to_sample() == study.settings


def test_an_image_has_the_pixels_of_the_demos_picture(study):
    latents = 5 * torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pictures = loader.load()[2].decode(latents)
    expected = (pictures[:, 4::8, 4::8] * 255).round().to(torch.uint8)
    assert expected.float().std() > 40 and numpy.array_equal(study.model.images(latents), expected.numpy())


def test_what_is_watched_of_a_run(study, monkeypatch, tmp_path):
    """The stability that the study of the model has too, of some of its steps, and pictures that become the image."""
    monkeypatch.setattr(sampling, "_model", study.model, raising=False)
    asked, drawn = data.prompts(0, 2), data.seeds(0, 2)[:2]
    latents, stability = study.model.measured(asked, drawn)
    sampling.watch(tmp_path / "watched.npz", asked, drawn, (slice(4), slice(4, None), slice(None)), (4, 11, plan.STEPS))
    with numpy.load(tmp_path / "watched.npz") as arrays:
        early, late, whole = arrays["stability"].transpose(1, 0, 2, 3)
        *previews, last, images = arrays["pictures"]
    assert numpy.array_equal(images, study.model.images(latents)) and numpy.array_equal(images, last)
    assert whole.shape == (3, 4, 2) and numpy.allclose(whole, stability[0])
    assert numpy.allclose((4 * early + 8 * late) / 12, whole, rtol=1e-4) and not numpy.allclose(early, late, rtol=0.01)
    far, near = (metrics.image_change(preview, images) for preview in previews)
    assert (far > 2 * near).all() and (near > 0).all()


def test_pairs_are_those_of_their_ranks():
    changes = numpy.random.default_rng(0).permutation(1000) / 1000
    chosen = pairs.at_ranks(pandas.DataFrame({"image change": changes}))["image change"]
    assert [1 / (changes >= change).mean() for change in chosen] == pytest.approx(pairs.ONE_IN)


def images_of(values):
    """Every outcome of images is these values, the more the better."""
    return {outcome: sign * values for outcome, sign in seeds.OUTCOMES.items()}


def test_prompts_whose_images_are_alike_tell_nothing():
    """Four in five prompts have four images that are equally good: rho is of the others, and what is gained is a mean over all."""
    generator = numpy.random.default_rng(2)
    y = numpy.where(generator.random((1000, 1)) < 0.8, 1.0, generator.integers(0, 3, (1000, 4)) / 2)
    informative = y[numpy.ptp(y, axis=1) > 0]
    count, rho, _, p = seeds.within(y + 1e-3 * generator.random(y.shape), y)
    assert count == len(informative) < 250 and p < 1e-6
    of_ranks = [spearmanr(row + 1e-3 * numpy.arange(4), row).statistic for row in informative]
    assert rho == pytest.approx(numpy.mean(of_ranks), abs=0.05)
    gained, error = seeds.gain(y, y)
    assert gained == pytest.approx((y.max(1) - y.mean(1)).mean()) and error > 0
    assert seeds.gain(numpy.ones_like(y), y)[0] == pytest.approx(0)
    by_chance = [seeds.within(generator.random(y.shape), y)[3] for _ in range(200)]
    assert 0.01 < numpy.mean(numpy.array(by_chance) < 0.05) < 0.11


def test_what_tells_of_a_prompts_images_and_what_only_of_prompts():
    """Images of 300 prompts: stability that goes with the image but for noise, one that goes with the prompt, and none."""
    generator = numpy.random.default_rng(1)
    of_prompts, of_images, noise = generator.normal(size=(3, 300, plan.PER_PROMPT))
    of_prompts[:] = of_prompts[:, :1]
    final = (3 * of_prompts + of_images).ravel()
    measures = numpy.stack([(of_images + noise).ravel(), (of_prompts + 1e-3 * noise).ravel(), noise.ravel()])
    stability = numpy.broadcast_to(measures[:, None, None], (3, len(seeds.WINDOWS), len(seeds.STAGES), final.size))
    told = seeds.told(stability, images_of(final), {4: images_of(of_images.ravel())})
    good, of_prompt, nothing = (told[told["told by"].str.startswith(measure)] for measure in seeds.STEADINESS)
    expected = numpy.mean([spearmanr(x, y).statistic for x, y in zip(measures[0].reshape(300, -1), of_images)])
    assert numpy.allclose(good["rho"], expected, atol=1e-3) and expected > 0.5
    for table in (of_prompt, nothing):
        assert (table["rho"].abs() < 3 * table["rho error"]).all() and (table["gain"].abs() < 3 * table["gain error"]).all()
    best = (of_images.max(axis=1) - of_images.mean(axis=1)).mean()
    assert numpy.allclose(told[told["stage"] == ""]["gain"], best) and numpy.allclose(told[told["stage"] == ""]["rho"], 1)
    assert numpy.allclose(good["gain"], best / 2**0.5, rtol=0.1)  # half of the variance of what it sees
    assert numpy.allclose(good["rho error"], 1 / (3 * 300) ** 0.5 * (1 - expected**2) ** 0.5, rtol=0.25)


@pytest.mark.timeout(1800)  # three minutes where nothing else runs
def test_the_headline_shows_again(tmp_path):
    """`python3 -m demo.evidence --quick`, with nothing sampled before, fails where a claim of EVIDENCE.md does not show."""
    options = json.dumps({"study": "quick", "jobs": None, "publish": False, "output": str(tmp_path)})
    done = subprocess.run([sys.executable, "-m", "circulation_demo.evidence.main", options], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "DOES NOT SHOW" not in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(list(tmp_path.glob("images-*/*.npz"))) == len(plan.QUICK.settings) + 2
    assert None not in json.loads((tmp_path / "quick" / "provenance.json").read_text()).values()
