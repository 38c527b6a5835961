"""What nodes and panels are told in sentences. Translations are in locales/*/main.json, under "phrases"."""

from collections.abc import Iterable

ENGLISH = {
    # what came of a rule
    "stopped": "Stopped early.",
    "off": "Off: the model is left as it is.",
    "noBlockHit": "No block hit.",
    "hit": "{extent}.",
    "hitInOnePass": "{extent}, {method}.",
    "extent": "{hit} of {all} blocks hit, {steps}, {branches}",
    "noStep": "none of {total} steps",
    "allSteps": "all {total} steps",
    "onlyStep": "the only step",
    "oneStep": "step {step} of {total}",
    "stepsFromTo": "steps {first} to {last} of {total}",
    "someSteps": "steps {steps} of {total}",
    "positive": "positive",
    "negative": "negative",
    "positive and negative": "positive and negative",
    "no branch": "no branch",
    "onePass": "in one pass at alpha {alpha}",
    "onePassUpTo": "in one pass at up to alpha {alpha}",
    "onePassLimited": "{onePass}, its limit, in the place of {wanted}",
    "onePassAdaptive": "in one pass (alpha kept within {least} to {most})",
    "changed": "Attention changed by {percent} %.",
    "changedInFirstStep": "Attention changed by {percent} % in the first step.",
    "overruled": "Nearer to the sampler another Circulation node decides at {overruled} of its {all} blocks.",
    "notFinite": "{count} results were not finite and were {fate}.",
    "replaced": "replaced by the model's own",
    "used": "used as they were",
    # why it hit no block
    "nothingSampled": "The sampler had no step to do.",
    "noStepCovered": "Its start, end and schedule cover no step of this run.",
    "noPositive": "The model was never asked about the positive prompt.",
    "noNegative": "The model was never asked about the negative prompt (cfg 1 leaves it out).",
    "notAsked": "The model's attention never came past Circulation: another node runs the model in its own way (docs/packs.md lists some).",
    "compiledBefore": "The compiled model never came past Circulation: it was compiled before Circulation was there. Restart ComfyUI, and "
    "sample with Circulation first; or take the compile node out.",
    "modelLeftAlone": "Left alone: {why}",
    "oneGraph": "it is compiled with fullgraph, which lets no node act inside of it. Turn fullgraph off in the compile node.",
    "blocksTaken": "another node runs the blocks of this model in its own way, so Circulation cannot reach their attention.",
    # what was left alone
    "neverCame": "Never came to {blocks}: another node skips those blocks or runs them in its own way.",
    "miscounted": "Left alone after the first call of the model: another node skips or adds attentions, and in this version of ComfyUI the "
    "blocks of this model are told apart by counting them.",
    "leftAlone": "Left alone in {count} calls at {blocks}: {why}.",
    "unequal": "queries and keys differ in number there (HyperTile, token merging or a cache of keys)",
    "otherNode": "another node replaces the self-attention there (such as PAG or SAG)",
    "uneven": "the rows there do not divide into positive and negative",
    "unknownRows": "another node runs the model without saying which rows are positive or negative: choose branches 'both'",
    "tiles": "another node hands several tiles to the model at once, and which rows are positive or negative cannot be told: "
    "choose branches 'both', or one tile at a time",
    "scaled": "the attention there has a scale of its own, which input space does not know: choose value space",
    "training": "gradients are being taken",
    "noImage": "which of the tokens there are the image's could not be told: set tokens to 'all'",
    "noOptions": "another node runs those blocks in its own way, without ComfyUI's options (such as TeaCache)",
    # what was changed in another way
    "remark": "At {blocks} {remark}.",
    "headsTooLarge": "another node's attention is not known to take heads of {value}, so PyTorch computes what Circulation adds to it",
    "rounding": "beta would multiply the rounding of {value} attention, so PyTorch computes those calls "
    "(method 'one pass' keeps {value})",
    # why an attention cannot be changed
    "textInstead": "attends to the text in place of the image",
    "textOnly": "sees the text alone",
    "imageRefiner": "refines the image before it meets the text",
    "referenceRefiner": "sees the reference images alone",
}


class Phrase(str):
    """A sentence or a part of one: English text that knows its key and its values, which may be phrases too, for other languages."""

    key: str
    values: dict

    def __new__(cls, key: str, **values):
        phrase = super().__new__(cls, ENGLISH[key].format(**values))
        phrase.key, phrase.values = key, values
        return phrase

    def __getnewargs_ex__(self):
        return (self.key,), self.values  # for copies

    def data(self) -> dict:
        """For JSON."""
        values = {name: value.data() if isinstance(value, Phrase) else value for name, value in self.values.items()}
        return {"key": self.key, "values": values, "text": str(self)}


def line_of(sentences: Iterable[Phrase]) -> dict:
    """A line of sentences, for JSON: in English, and each of them."""
    sentences = list(sentences)
    return {"text": " ".join(sentences), "sentences": [sentence.data() for sentence in sentences]}
