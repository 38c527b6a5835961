"""Which settings a text stands for, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.host import engine, node

comparison, choices = engine("comparison.settings"), engine("choices")
CirculationSettings, AdaptiveSettings = engine("method.settings").CirculationSettings, engine("method.settings").AdaptiveSettings
NODES = ["CirculationSweep", "CirculationGrid"]


def alphas(text):
    return comparison.numbers("alpha", text, choices.ALPHA_RANGE)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1.05", [1.05]),
        ("1, 1.05, 1.1, 1.2", [1, 1.05, 1.1, 1.2]),
        ("1.1,1,1.05", [1.1, 1, 1.05]),  # in the order in which they are written
        ("1 1.05;1.1\n1.2", [1, 1.05, 1.1, 1.2]),
        ("1，1.05、1.1；1.2", [1, 1.05, 1.1, 1.2]),
        (", 1,, 1.05 ,", [1, 1.05]),
        (".5 +1. -0.5 −1", [0.5, 1, -0.5, -1]),
        ("0.9:1.2:0.05", [0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2]),  # not 1.1500000000000001
        ("0.9 : 1.2 : 0.1", [0.9, 1, 1.1, 1.2]),
        ("1:1.25:0.1", [1, 1.1, 1.2]),
        ("1.2:0.9:-0.1", [1.2, 1.1, 1, 0.9]),
        ("0.9…1.2 ×4", [0.9, 1, 1.1, 1.2]),
        ("0.9...1.2 x4", [0.9, 1, 1.1, 1.2]),
        ("0.9 … 1.2 X 4", [0.9, 1, 1.1, 1.2]),
        ("0...1x4", [0, 0.3333, 0.6667, 1]),
        ("1.2…1 ×3", [1.2, 1.1, 1]),
        ("1, 0.8...0.9 x2, 2:2.2:0.1, 3", [1, 0.8, 0.9, 2, 2.1, 2.2, 3]),
        ("1, 2", [1, 2]),
        ("1,2,3", [1, 2, 3]),
        ("1,1.05", [1, 1.05]),
        ("1.05,1", [1.05, 1]),
        ("0:0.63:0.01", [n / 100 for n in range(64)]),
    ],
)
def test_numbers_are_those_that_were_written(text, expected):
    assert alphas(text) == expected


@pytest.mark.parametrize(
    "text, named",
    [
        ("1, x", "'x' is not a number"),
        ("1, ×", "'×' is not a number"),
        ("1:2:0", "'1:2:0' never gets from 1 to 2 in steps of 0"),
        ("1:2:-0.1", "'1:2:-0.1' never gets"),
        ("1:2", "'1:2' is not a number"),
        ("1…2", "'1…2' is not a number"),
        ("1…2 ×1", "'1…2×1' asks for 1 numbers"),
        ("1 ×3", "'1×3' is not a number"),
        ("nan", "'nan' is not a number"),
        ("1e-2", "'1e-2' is not a number"),
        ("1,05", "'1,05' has a comma between digits. Write 1.05 with a point"),
        ("1,2", "'1,2' has a comma between digits"),
        ("1, 1,05", "'1,05' has a comma between digits"),
        ("0,9:1,2:0,05", "'0,9' has a comma between digits"),
        ("1,05,1,1", "'05' begins with a zero"),
        ("", "alpha is empty"),
        (" , ", "alpha is empty"),
        (" ".join(f"1.{n:02}" for n in range(65)), "alpha has more than 64 numbers"),
        ("0:0.64:0.01", "'0:0.64:0.01' are 65 numbers"),
        ("0…1 ×65", "'0…1×65' are 65 numbers"),
        ("0:1:0.000000001", "are 1000000001 numbers"),
        ("0…1 ×999999999", "are 999999999 numbers"),
        ("1, 7", "'7' is 7 and must be between -1 and 3"),
        ("2:4:0.5", "'2:4:0.5' is 3.5 and must be between -1 and 3"),
        ("9" * 100_000, "is not a number"),
        (1.05, "alpha is 1.05 and must be text"),
        (None, "alpha is None"),
    ],
)
def test_what_is_wrong_is_named(text, named):
    with pytest.raises(ValueError) as error:
        alphas(text)
    assert str(error.value).startswith("alpha") and named in str(error.value) and len(str(error.value)) < 300


@given(st.text(alphabet="0123456789.,:;…×xX+-− \n１", max_size=20))
def test_any_text_gives_numbers_in_the_range_or_a_reason(text):
    try:
        found = alphas(text)
    except ValueError as error:
        assert str(error).startswith("alpha")
    else:
        assert 1 <= len(found) <= 64 and all(-1 <= number <= 3 for number in found)


@pytest.mark.parametrize(
    "alpha, beta, baseline, expected",
    [
        ("1.05, 1.1", "3, 5", False, [(1.05, 3), (1.05, 5), (1.1, 3), (1.1, 5)]),
        ("1.05", "3", True, [comparison.OFF, (1.05, 3)]),
        ("1.05, 1, 1.1", "3, 5", True, [comparison.OFF, (1.05, 3), (1.05, 5), (1.1, 3), (1.1, 5)]),
        ("1.05, 1", "3, 0", False, [(1.05, 3), comparison.OFF]),
        ("1.05, 1.05", "3", False, [(1.05, 3)]),
    ],
)
def test_each_alpha_meets_each_beta_and_off_is_there_once(alpha, beta, baseline, expected):
    assert comparison.settings(alpha, beta, baseline) == expected


def test_at_most_64_settings():
    assert len(comparison.settings("1.01:1.63:0.01", "3", True)) == 64
    with pytest.raises(ValueError, match="alpha and beta make 65 settings, off included: at most 64"):
        comparison.settings("1.01:1.64:0.01", "3", True)
    with pytest.raises(ValueError, match="alpha and beta make 66 settings: at most 64"):
        comparison.settings("1.01:1.11:0.01", "1:6:1", False)


@pytest.mark.parametrize(
    "circulation, label",
    [
        (CirculationSettings(1.05, 3.0), "alpha 1.05, beta 3"),
        (CirculationSettings(0.3333, 10.0), "alpha 0.3333, beta 10"),
        (CirculationSettings(1.000000001, 3.0), "alpha 1.000000001, beta 3"),
        (CirculationSettings(1.05, 3.0, method=choices.ONE_PASS), "alpha 1.05, beta 3, one pass"),
        (CirculationSettings(1.2, 5.0, adaptive=AdaptiveSettings()), "alpha 1.2, beta 5, adaptive"),
        (CirculationSettings(1.0, 3.0), "off"),
        (CirculationSettings(1.2, 0.0, method=choices.ONE_PASS), "off"),
    ],
)
def test_a_setting_has_a_name(circulation, label):
    assert circulation.label == label


@pytest.mark.parametrize("id", NODES)
def test_texts_are_refused_before_anything_runs_but_not_those_that_are_yet_to_come(id):
    validate = node(id).validate_inputs
    assert validate(alpha="1, 1.05", beta="3", baseline=True) is True
    assert "'x' is not" in validate(alpha="1, x", beta="3")
    assert "beta is empty" in validate(alpha="1", beta="")
    assert "65 settings" in validate(alpha="1.01:1.64:0.01", beta="3")
    assert validate(alpha="1.01:1.64:0.01", beta="3", baseline=False) is True
    assert validate(alpha=None, beta=None) is True  # linked
    assert "beta: 'x'" in validate(alpha=None, beta="x")
    assert "alpha: 'x'" in validate(alpha="x", beta=None)


@pytest.mark.parametrize("id", NODES)
def test_a_search_for_what_others_call_it_finds_it(id):
    aliases = getattr(node(id).GET_SCHEMA(), "search_aliases", None)
    if aliases is None:
        pytest.skip("this ComfyUI has no search aliases")
    assert {"xy plot", "compare", "grid", "sweep", "circulation"} <= set(aliases)


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"positive": 0.3}, "positive is 0.3 and must be a link"),
        ({"vae": "a name"}, "vae is 'a name' and must be a link"),
        ({"seed": "1"}, "seed is '1'"),
        ({"seeds": 65}, "seeds is 65"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"cfg": float("nan")}, "cfg is nan"),
        ({"denoise": "all"}, "denoise is 'all'"),
        ({"sampler_name": "x"}, "sampler_name is 'x' and must be one of: euler"),
        ({"scheduler": ["normal"]}, "scheduler is "),
    ],
)
def test_a_grid_refuses_what_a_link_brings_before_anything_is_sampled(wrong, words):
    links = {name: ["1", place] for place, name in enumerate(("model", "positive", "negative", "latent", "vae"))}
    values = dict(alpha="1.05", beta="3", seed=0, seeds=1, steps=1, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0)
    with pytest.raises(ValueError, match=words):
        node("CirculationGrid").execute(**{**links, **values, **wrong})
