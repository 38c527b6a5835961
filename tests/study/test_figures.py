"""Figures in sentences of the documents are those of the results."""

import re

import pytest
from circulation_demo import ROOT
from circulation_demo.evidence.report import MODELS
from circulation_demo.replication import analysis, plan, report

ABOVE, BELOW = plan.STRONGEST, plan.BELOW[-1]
PROMPT, MIXTURE, SPREAD, TYPICAL = plan.PRIMARY


def models():
    return report.models_of(MODELS)


def percent(row, measure):
    return abs(100 * analysis.difference(models(), [row], measure).mean / analysis.without_a_knob(models(), measure))


def visibly(row):
    return 100 * analysis.changed(models(), row)["visibly changed"]


def missed(measure, side, of=1):
    """The smallest slope that would have been seen, in percent of a value."""
    slopes = [analysis.slope(model, side, measure) for model in models()]
    return 100 * analysis.combined(slopes, 8).smallest / of


def share_missed(measure, side):
    return missed(measure, side, analysis.without_a_knob(models(), measure))


FIGURES = {
    ("EVIDENCE.md", r"(\d+) change visibly at alpha 1\.2, beta 5"): lambda: visibly(ABOVE),
    ("EVIDENCE.md", r"and (\d+) at 0\.8"): lambda: visibly(BELOW),
    ("EVIDENCE.md", r"less typical, by ([\d.]+) % at alpha 0\.8"): lambda: percent(BELOW, TYPICAL),
    ("EVIDENCE.md", r"more typical, by ([\d.]+) % at alpha 1\.2"): lambda: percent(ABOVE, TYPICAL),
    ("EVIDENCE.md", r"([\d.]+) % of variety above"): lambda: share_missed(SPREAD, plan.ABOVE),
    ("EVIDENCE.md", r"above and ([\d.]+) % below"): lambda: share_missed(SPREAD, plan.BELOW),
    ("EVIDENCE.md", r"([\d.]+) and [\d.]+ points of the prompt"): lambda: missed(PROMPT, plan.ABOVE),
    ("EVIDENCE.md", r"and ([\d.]+) points of the prompt"): lambda: missed(PROMPT, plan.BELOW),
    ("EVIDENCE.md", r"([\d.]+) and [\d.]+ % of the mixtures"): lambda: share_missed(MIXTURE, plan.ABOVE),
    ("EVIDENCE.md", r"and ([\d.]+) % of the mixtures"): lambda: share_missed(MIXTURE, plan.BELOW),
    ("README.md", r"images were ([\d.]+) % more typical at 1\.2, beta 5"): lambda: percent(ABOVE, TYPICAL),
    ("README.md", r"images were ([\d.]+) % less typical at 0\.8, beta 5"): lambda: percent(BELOW, TYPICAL),
}


@pytest.mark.parametrize("document, sentence", FIGURES)
def test_a_figure_in_a_sentence_is_that_of_the_results(document, sentence):
    text = " ".join((ROOT / document).read_text(encoding="utf-8").split())
    (found,) = re.findall(sentence, text)
    digits = len(found.partition(".")[2])
    assert found == f"{FIGURES[document, sentence]():.{digits}f}"


def test_the_documents_say_how_many_models_there_are():
    number = ("no", "one", "two", "three", "four", "five")[len(models())]
    sentences = {"EVIDENCE.md": "that were trained", "README.md": "small models", "docs/evidence/several-models.md": "models of the"}
    for document, words in sentences.items():
        assert f"{number} {words}" in (ROOT / document).read_text(encoding="utf-8").lower(), document
