"""What is measured of settings side by side: against metric libraries, formulas written out, and simulation."""

import csv
import io
import math

import numpy
import pytest
import scipy.stats
import torch
from scipy.spatial.distance import pdist
from sklearn import preprocessing
from sklearn.datasets import load_digits
from support.host import engine
from vendi_score import vendi

diversity, change, measure, table = (engine(f"comparison.{name}") for name in ("diversity", "change", "measure", "table"))
record = engine("records.record")
pytestmark = pytest.mark.filterwarnings("ignore:Please import `csr_matrix`:DeprecationWarning")  # within vendi_score


def images(count, seed=0, size=(16, 24), channels=3):
    return torch.rand(count, *size, channels, generator=torch.Generator().manual_seed(seed))


# --- diversity


@pytest.mark.parametrize("count", [2, 5, 8, 40])
@pytest.mark.parametrize("alike", [False, True], ids=["different", "two of them the same"])
def test_distance_and_vendi_score_equal_the_libraries(count, alike):
    pixels = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))
    if alike:
        pixels[1] = pixels[0]
    points = pixels.flatten(1).double().numpy()
    found = diversity.in_pixels(pixels)
    assert found.distance.value == pytest.approx(pdist(points).mean() / points.shape[1] ** 0.5, abs=1e-6)
    assert found.vendi.value == pytest.approx(vendi.score_X(2 * points - 1), abs=1e-6)
    found = diversity.in_embeddings(torch.from_numpy(points - 0.3))
    assert found.distance.value == pytest.approx(pdist(points - 0.3, "cosine").mean(), abs=1e-6)
    directions = preprocessing.normalize(points - 0.3)
    assert found.vendi.value == pytest.approx(vendi.score_K(directions @ directions.T), abs=1e-6)


@pytest.mark.parametrize("levels, distance, kinds", [
    ((0, 0, 0, 0), 0, 1),
    ((0.5, 0.5), 0, 1),
    ((0, 1), 1, 1),  # opposite, and so along one axis: one eigenvalue has all the weight
    ((0.5, 1), 0.5, 2),
])  # fmt: skip
def test_of_plain_images_both_are_known(levels, distance, kinds):
    found = diversity.in_pixels(torch.tensor(levels, dtype=torch.float64).reshape(-1, 1, 1, 1).expand(-1, 3, 64, 64))
    assert found.distance.value == pytest.approx(distance)
    assert found.vendi.value == pytest.approx(kinds, abs=1e-6)


# --- intervals


def gaussian(random, count):
    return random.standard_normal((count, 100))


def decaying(random, count):
    """As pictures are: most of what differs lies in few directions, about a mean."""
    return random.standard_normal((count, 300)) / numpy.arange(1, 301) + 3 / 300**0.5


def kinds(random, count):
    centres = numpy.random.default_rng(1).standard_normal((5, 50))
    return centres[random.integers(5, size=count)] + 0.6 * random.standard_normal((count, 50))


def heavy(random, count):
    return random.standard_t(4, (count, 30))


DIGITS = load_digits().images.reshape(-1, 64) / 8 - 1


def digits(random, count):
    return DIGITS[random.integers(len(DIGITS), size=count)]


@pytest.mark.parametrize("of", [diversity.in_pixels, diversity.in_embeddings], ids=["pixels", "embeddings"])
@pytest.mark.parametrize("draw", [gaussian, decaying, kinds, heavy, digits])
def test_an_interval_holds_the_true_value_in_90_of_100_batches_of_8(draw, of):
    random, runs = numpy.random.default_rng(0), 400
    batches = [of(torch.from_numpy(draw(random, 8))) for _ in range(runs)]
    many = draw(random, 1500)
    distance = pdist(many).mean() / many.shape[1] ** 0.5 if of is diversity.in_pixels else pdist(many, "cosine").mean()
    points = (2 * draw(random, 8) - 1 if of is diversity.in_pixels else draw(random, 8) for _ in range(2000))
    score = numpy.mean([vendi.score_X(batch) for batch in points])
    for name, true in (("distance", distance), ("vendi", score)):
        found = [getattr(batch, name).interval for batch in batches]
        given = [interval for interval in found if interval]
        assert len(given) > runs / 2
        assert sum(low <= true <= high for low, high in given) >= 0.9 * len(given), name


@pytest.mark.parametrize("count, distance, score", [(2, False, False), (3, False, False),
    (4, True, False), (7, True, False), (8, True, True)])  # fmt: skip
def test_few_images_have_values_without_an_interval(count, distance, score):
    found = diversity.in_pixels(torch.rand(count, 3, 64, 64))
    assert (found.distance.interval is not None, found.vendi.interval is not None) == (distance, score)
    assert math.isfinite(found.distance.value) and 1 <= found.vendi.value <= count


def test_where_two_images_are_nearly_the_same_there_is_no_interval():
    pixels = torch.rand(8, 3, 64, 64)
    pixels[1] = pixels[0] + 0.01
    found = diversity.in_pixels(pixels)
    assert found.distance.interval is None and found.vendi.interval is None


@pytest.mark.parametrize("hits, of", [(0, 8), (1, 8), (8, 8), (3, 4), (7, 100)])
def test_the_interval_of_a_share_is_the_exact_one(hits, of):
    exact = scipy.stats.binomtest(hits, of).proportion_ci(0.95, "exact")
    assert diversity.share(hits, of).interval == pytest.approx((exact.low, exact.high))
    assert diversity.share(hits, of).value == hits / of


def test_the_interval_of_a_share_covers_every_true_share():
    for true in numpy.linspace(0.01, 0.99, 50):
        covered = [diversity.share(hits, 8).interval for hits in range(9)]
        chance = scipy.stats.binom(8, true).pmf(range(9))
        assert sum(p for p, (low, high) in zip(chance, covered) if low <= true <= high) >= 0.95


# --- change


def test_change_is_the_root_mean_square_difference():
    size = (150, 70)  # not read as a whole
    first, *others = (images(1, seed=seed, size=size)[0] for seed in range(3))
    found = change.changes([others[0], images(1, size=(150, 8))[0], others[1]], first)
    expected = [float(((other.double() - first.double()) ** 2).mean() ** 0.5) for other in others]
    assert found == [pytest.approx(expected[0], rel=1e-6), None, pytest.approx(expected[1], rel=1e-6)]


@pytest.mark.parametrize("size", [(150, 70), (64, 64), (8, 300), (1, 1)])
def test_small_pictures_are_means_over_areas(size):
    image = images(1, size=size)[0]
    expected = torch.nn.functional.interpolate(image.movedim(-1, 0)[None], size=(64, 64), mode="area")[0]
    assert change.small(image) == pytest.approx(expected, abs=1e-6)


def test_bytes_are_the_whole_picture_in_255_levels():
    image = images(1, size=(150, 70))[0] * 1.2 - 0.1
    assert (change.in_bytes(image) == (image.clamp(0, 1) * 255).round().byte().numpy()).all()


def test_a_picture_is_what_comfyui_saves():
    values = torch.tensor([[[float("nan"), -1.0, 2.0, 0.3], [0.5, 0.25, float("inf"), 1.0]]])
    assert change.picture(values).tolist() == [[[0, 0, 1], [0.5, 0.25, 1]]]
    assert change.picture(torch.tensor([[[0.5]]])).tolist() == [[[0.5, 0.5, 0.5]]]


@pytest.fixture
def settings():
    """Four of the eight images of the second setting changed by 10 %, none of the third visibly."""
    first = images(8) * 0.5 + 0.2
    second, third = first.clone(), first + 0.04
    second[::2] += 0.1
    return measure.measured([first, second, third], ["off", "alpha 1.2", "alpha 1.05"])


def test_each_setting_is_compared_with_the_first(settings):
    first, second, third = settings
    assert first.changes == () and first.visible is None and first.mean_change is None
    assert second.visible.value == 0.5 and second.mean_change == pytest.approx(0.05, abs=1e-6)
    assert third.visible.value == 0 and third.mean_change == pytest.approx(0.04, abs=1e-6)
    assert first.diversity.distance.value == pytest.approx(third.diversity.distance.value)  # all are brighter by the same


def test_columns_can_be_in_the_order_of_change(settings):
    assert measure.by_change(settings) == [0, 2, 4, 6, 1, 3, 5, 7]


def test_what_cannot_be_compared_is_left_out():
    first, longer, other = images(2), images(3, seed=1), images(2, size=(8, 8))
    found = measure.measured([first, longer, other], ["a", "b", "c"])
    assert [len(setting.compared) for setting in found] == [0, 2, 0]
    assert found[2].mean_change is None and found[2].diversity is not None
    assert "is not compared" in table.to_markdown(found)


def test_with_a_vision_model_diversity_is_between_what_it_sees():
    batch = images(20)
    calls = []

    def embed(part):
        calls.append(len(part))
        return part.mean(dim=(1, 2)).half() + torch.arange(3)

    (found,) = measure.measured([batch], ["a"], embed=embed)
    seen = (batch.mean(dim=(1, 2)).half() + torch.arange(3)).double().numpy()
    assert found.diversity.distance.value == pytest.approx(pdist(seen, "cosine").mean(), abs=1e-6)
    assert found.space == "CLIP vision" and calls == [8, 8, 4]
    with pytest.raises(ValueError, match="not finite"):
        measure.measured([batch], ["a"], embed=lambda part: part.mean(dim=(1, 2)) / 0)


# --- lists


@pytest.mark.parametrize("given, count, labels", [
    (["a", "b"], 2, ["a", "b"]),
    (["a\nb"], 2, ["a", "b"]),
    (["a\n\nc\n"], 3, ["a", "setting 2", "c"]),
    (["two\nlines"], 1, ["two\nlines"]),
    ([""], 3, ["setting 1", "setting 2", "setting 3"]),
])  # fmt: skip
def test_labels_are_a_list_or_lines(given, count, labels):
    assert measure.labels_of(given, count) == labels


@pytest.mark.parametrize("given, words", [
    (["a", "b", "c"], "images has 2 batches and labels has 3 entries"),
    (["a\nb\nc"], "images has 2 batches and labels has 3 entries"),
    (["a", 3], "labels has 3"),
])  # fmt: skip
def test_labels_that_do_not_fit_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        measure.labels_of(given, 2)


def test_scores_are_of_settings_or_of_images():
    batches = [images(2), images(3)]
    assert measure.scores_of([1, 2.5], batches) == [(1,), (2.5,)]
    assert measure.scores_of([1, 2, 3, 4, 5], batches) == measure.scores_of([[1, 2], [3, 4, 5]], batches) == [(1, 2), (3, 4, 5)]
    unequal = "2 batches and scores has 3 entries.*or 5, one of each image"
    for wrong, words in (([1, 2, 3], unequal), ([1, math.nan], "nan"), ([1, "x"], "'x'")):
        with pytest.raises(ValueError, match=words):
            measure.scores_of(wrong, batches)


def run_record(level):
    info = record.RunInfo("", "value space", "SDXL", "euler", 2, (2.0, 1.0, 0.0), ("middle.0",))
    values = torch.full((5, 2, 1, 2, 1), level)
    values[:, :, :, 1] = torch.nan
    values[4] = torch.nan
    return record.Record((record.RunRecord(info, torch.tensor([2.0, 1.0]), torch.arange(2.0), values),))


def test_stability_is_the_mean_of_what_was_measured():
    assert measure.stability_of([run_record(0.5)], 1) == [{"energy": 0.5, "instability": 0.5, "alignment": 0.5, "eta": 0.5}]
    with pytest.raises(ValueError, match="images has 3 batches and stability has 1 entries"):
        measure.stability_of([run_record(0.5)], 3)


@pytest.mark.parametrize("wrong, words", [
    ([torch.rand(4, 4, 3)], r"Batch 1 of images is of shape \(4, 4, 3\)"),
    ([images(1), None], "Batch 2 of images is None"),
    ([images(1)[:0]], r"of shape \(0, 16, 24, 3\)"),
])  # fmt: skip
def test_what_is_no_batch_of_images_is_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        measure.batches_of(wrong)


# --- tables


def test_the_table_says_what_was_measured(settings):
    lines = table.to_markdown(settings).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:5]]
    assert len({len(row) for row in rows}) == 1
    assert rows[2][:4] == ["off (baseline)", "8", "", ""]
    assert rows[3][:4] == ["alpha 1.2", "8", "4 of 8 (16 to 84 %)", "5.0 %"]
    assert "In brackets: 95 % intervals" in table.to_markdown(settings)


def test_few_images_are_said_to_be_few():
    few = table.to_markdown(measure.measured([images(3), images(3, seed=1)], ["a", "b"]))
    assert "No intervals for fewer than 4 images" in few and "(" not in few.splitlines()[3]
    assert "from 8 images on" in table.to_markdown(measure.measured([images(5)] * 2, ["a", "b"]))


def test_labels_do_not_break_the_table():
    found = table.to_markdown(measure.measured([images(2)], ["a | b\n\x00 c"]))
    assert r"| a \| b \x00 c (baseline) |".replace(r"\x00", r"\\x00") in found


def test_the_data_has_every_value():
    batches = [images(4), images(4, seed=1)]
    found = measure.measured(batches, ["off", "a, b"], measure.scores_of(range(8), batches), measure.stability_of([run_record(0.5)] * 2, 2))
    rows = list(csv.DictReader(io.StringIO(table.to_csv(found))))
    assert {row["label"] for row in rows} == {"off", "a, b"}
    changes = [float(row["value"]) for row in rows if row["measure"] == "change"]
    assert changes == pytest.approx(found[1].changes, rel=1e-5) and len(changes) == 4
    one = {row["measure"]: row for row in rows if row["setting"] == "2" and not row["image"]}
    assert float(one["mean score"]["value"]) == 5.5 and float(one["stability: energy"]["value"]) == 0.5
    distance = one["mean distance, pixels"]
    assert float(distance["low"]) < float(distance["value"]) < float(distance["high"])
    assert not one["mean change"]["low"] and not one["Vendi score, pixels"]["high"]
