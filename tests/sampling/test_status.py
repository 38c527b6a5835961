"""What a Circulation node is told after a run: one honest line about its own rule."""

import comfy_extras.nodes_pag
import pytest
from support import models, others
from support.host import engine, made_by, node
from support.sampling import sample, without_change


@pytest.fixture(scope="module")
def model():
    return models.build("sd15")


def test_each_node_hears_of_its_own_blocks_steps_and_branches(model, statuses):
    both = made_by("2", made_by("1", model, blocks="middle"), blocks="output", branches="negative", end_percent=0.5)
    sample(both, steps=4)
    assert without_change(statuses) == {
        "1": "1 of 10 blocks hit, all 4 steps, positive and negative.",
        "2": "6 of 10 blocks hit, steps 1 to 2 of 4, negative.",
    }


def test_a_schedule_counts_as_it_acts(model, statuses):
    grid = node("CirculationSchedule").execute('{"grid": [[0, 1], [0, 0]]}').result[0]
    sample(made_by("1", model, schedule=grid), steps=4)
    assert without_change(statuses) == {"1": "5 of 10 blocks hit, steps 3 to 4 of 4, positive and negative."}


def test_a_node_whose_blocks_another_has_taken_is_told_so(model, statuses):
    sample(made_by("2", made_by("1", model, blocks="middle, output"), blocks="all"))
    assert statuses["1"] == "No block hit. Nearer to the sampler another Circulation node decides at 7 of its 7 blocks."
    assert statuses["2"].startswith("10 of 10 blocks hit")


def test_a_node_that_is_off_says_so(model, statuses):
    sample(made_by("1", model, alpha=1.0))
    assert statuses == {"1": "Off: the model is left as it is."}
    sample(made_by("2", model, schedule=node("CirculationSchedule").execute('{"grid": [[0]]}').result[0]))
    assert statuses["2"] == "Off: the model is left as it is."


def test_what_was_left_alone_is_told_to_those_whose_blocks_it_was(model, statuses):
    replaced = others.execute(comfy_extras.nodes_pag.PerturbedAttentionGuidance, model, scale=3.0)
    sample(made_by("2", made_by("1", replaced, blocks="input"), blocks="middle"))
    assert "Left alone" not in statuses["1"]
    assert "Left alone in 2 calls at middle.0.0: another node replaces the self-attention there" in statuses["2"]


def test_a_run_that_stops_early_says_so(model, statuses):
    def stop(step, *_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sample(made_by("1", model), callback=stop)
    assert statuses["1"].startswith("Stopped early. 10 of 10 blocks hit")


def test_the_log_and_the_node_say_that_it_was_one_pass(model, statuses, caplog):
    caplog.set_level("INFO", "circulation")
    sample(made_by("1", model, alpha=1.05, beta=3.0, method="one pass"), steps=2)
    assert "alpha 1.05 beta 3 in one pass at alpha 1.15 on all: 10 of 10 blocks hit" in caplog.text
    assert without_change(statuses) == {"1": "10 of 10 blocks hit, all 2 steps, positive and negative, in one pass at alpha 1.15."}


@pytest.fixture
def sentences(monkeypatch):
    """Those that each node gets, by its id: key, values and English text."""
    events, sent = engine("comfy.events"), {}
    monkeypatch.setattr(events, "send", lambda event, node, data: sent.update({node: data}))
    yield sent
    for data in sent.values():
        assert data["text"] == " ".join(sentence["text"] for sentence in data["sentences"])


def test_a_node_hears_each_sentence_for_other_languages(model, sentences):
    sample(made_by("1", model, alpha=1.05, beta=3.0, method="one pass", blocks="middle"), steps=2)
    hit, changed = sentences["1"]["sentences"]
    extent, method = hit["values"]["extent"], hit["values"]["method"]
    assert (hit["key"], extent["key"], changed["key"]) == ("hitInOnePass", "extent", "changedInFirstStep")
    assert (extent["values"]["hit"], extent["values"]["all"], extent["values"]["steps"]["key"]) == (1, 10, "allSteps")
    assert (method["key"], method["values"], method["text"]) == ("onePass", {"alpha": "1.15"}, "in one pass at alpha 1.15")


def test_why_a_model_was_left_alone_is_a_sentence_too(model, sentences):
    keys, patched = engine("comfy.keys"), made_by("1", model)
    patched.model_options[keys.COMPILE_OPTIONS] = {keys.ONE_GRAPH: True}
    sample(patched)
    (left_alone,) = sentences["1"]["sentences"]
    assert (left_alone["key"], left_alone["values"]["why"]["key"]) == ("modelLeftAlone", "oneGraph")
