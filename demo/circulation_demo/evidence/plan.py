"""What is asked, of how many images, and with which measures. Written down before any result was looked at.

Questions
  0. Is the model good enough to ask? Baseline images, each of another prompt, against held-out real ones; and is it its own
     or remembered from training?
  1. Does Circulation move fidelity and diversity, in which direction on each side of alpha 1, and by more than chance?
  2. Which settings of strength, rule, rescale space, depth and time move them, and which leave them alone?
  3. What else changes: the noise prediction itself, colours, obedience to the prompt?
  4. Do images whose attention is more stable have more fidelity and less diversity (the paper's Table 1)?
  5. Does Circulation act more on the least stable tenth of the baselines than on the most stable one?

Measures, in two feature spaces (a factor classifier's last layer and the pixels themselves, both as 32 principal components of
held-out real images)
  fidelity   precision, density, FID; in the classifier's eyes: share of prompted factors recognised, mixture index;
             palette validity
  diversity  recall, coverage, Vendi score; mean distance between images of one prompt
  memory     distance to the nearest training image

A difference from the baseline counts as found where its 95 % interval, from resampling prompts, leaves out zero. With some forty
settings and a dozen measures a few such differences are chance: what only one measure in one feature space shows is not called a finding.
Precision and density reward averages of real images, so each table holds rows of controls that must look bad where it matters.

Before results, the strengths 0.9 and 1.1 were taken out of the grid to save time. All of it was then measured on a model after 3,200,
11,200 and 16,000 steps of training (`earlier`), and again, with nothing changed, on the model that is here. What was changed after
results were seen: QUICK, which only looks whether the largest findings show again; the table of question 0's memory, which got the real
images of the same prompts beside others, and then a test of the whole distribution, because of eight intervals of 95 % one is often
missed between real images too; where images begin, which is now the average colour (a property of the model, chosen on the baseline
alone); DEFAULT, which keeps to beta 5 and to alpha 1.2 to save time; and the adaptive rule with alpha alone, which was meant to be asked
of all models and is asked of this one only: on those before it every adaptive row has the node's defaults, with beta by eta too.
`seeds` asks within prompts what question 4 asks over all images, after its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

ALPHAS = (0.5, 0.8, 0.95, 1.05, 1.2, 1.5)
BETAS = (1.0, 3.0, 5.0)
STEPS, CFG = 12, 1.5  # chosen on the baseline alone
SAMPLER, SCHEDULER = "dpmpp_2m", "karras"
PER_PROMPT = 4  # images of each prompt
NEIGHBOURS = 5
COMPONENTS = 32
REFERENCE = 2000  # held-out images that stand for the true distribution
QUANTILES = (0.01, 0.05, 0.5, 0.95)  # of the distance to the nearest training image
RESAMPLES = 200
VISIBLE = 0.05  # of full range, as the root of the mean square over an image: what changes by more is called visibly changed


@dataclass(frozen=True)
class Setting:
    """One way to sample: a node of the pack (None: the baseline) and its inputs; inputs that a node does not have are None.

    In the results each field is a column of `settings.csv`. `label` is for people: nothing is read from it.
    """

    alpha: float | None = None
    beta: float | None = None
    label: str = ""
    node: str | None = None
    rescale: str | None = None
    blocks: str | None = None
    start_percent: float | None = None
    end_percent: float | None = None
    adapt_beta: bool | None = None
    formula: str | None = None
    main: bool = False  # at the full size of the sample

    @property
    def strength(self) -> str:
        return f"alpha {self.alpha:g}, beta {self.beta:g}" if self.node else ""

    @property
    def name(self) -> str:
        """What tables call it, and the key between the files of results."""
        return ": ".join(filter(None, (self.label, self.strength)))

    @property
    def inputs(self) -> dict:
        """What the node is given, by the names of its inputs."""
        return {key: value for key, value in asdict(self).items() if key not in ("label", "node", "main") and value is not None}


STATIC: dict[str, Any] = dict(node="CirculationControl", rescale="value space", blocks="all", start_percent=0.0, end_percent=1.0)
ADAPTIVE = STATIC | dict(node="CirculationAdaptive", formula="deviation")
static: Callable[..., Setting] = partial(Setting, label="static", **STATIC)
# With both alpha and beta by eta, as the node comes.
adaptive: Callable[..., Setting] = partial(Setting, label="adaptive", **ADAPTIVE, adapt_beta=True)
alpha_alone: Callable[..., Setting] = partial(Setting, label="adaptive, alpha alone", **ADAPTIVE, adapt_beta=False)

BASELINE = Setting(label="baseline", main=True)
MAIN = (
    BASELINE,
    *(static(alpha, beta, main=True) for alpha in (0.8, 0.95, 1.05, 1.2) for beta in (3.0, 5.0)),
    adaptive(1.2, 5.0, main=True),
    alpha_alone(1.2, 5.0, main=True),
)
GRID = tuple(static(alpha, beta) for alpha in ALPHAS for beta in BETAS if static(alpha, beta, main=True) not in MAIN)
RULES = (
    adaptive(0.8, 5.0),
    alpha_alone(0.8, 5.0),
    adaptive(1.05, 3.0, label="adaptive, formula scale", formula="scale"),
    *(static(alpha, 5.0, label="input space", rescale="input space (paper)") for alpha in (0.8, 1.2)),
    *(static(alpha, 5.0, label="no rescale", rescale="off") for alpha in (0.8, 1.2)),
)
DEPTHS = {"early depth": "0%-33%", "middle depth": "34%-66%", "late depth": "67%-100%"}
TIMES = {"early time": (0.0, 0.4), "late time": (0.4, 1.0)}
PLACES = (
    *(static(alpha, 5.0, label=label, blocks=blocks) for label, blocks in DEPTHS.items() for alpha in (0.8, 1.2)),
    *(static(alpha, 5.0, label=label, start_percent=t[0], end_percent=t[1]) for label, t in TIMES.items() for alpha in (0.8, 1.2)),
)
# For question 3: where, and how far, the noise prediction itself moves at the baseline's own noisy images.
PREDICTION = (
    BASELINE,
    *(static(a, 5.0, label=label, blocks=b) for label, b in {"all": "all", **DEPTHS}.items() for a in (0.8, 0.95, 1.05, 1.2)),
    adaptive(1.2, 5.0),
)
SETTINGS = (*MAIN, *GRID, *RULES, *PLACES)
# One of each thing that a node can do: what they do to the model says whether images sampled before are still those of these nodes.
EXAMPLES = (
    static(0.5, 3.0),
    static(1.2, 5.0),
    static(1.2, 5.0, rescale="input space (paper)"),
    static(1.2, 5.0, rescale="off", blocks="67%-100%"),
    static(0.8, 5.0, start_percent=0.4),
    static(0.8, 5.0, end_percent=0.4),
    adaptive(1.2, 5.0),
    alpha_alone(1.05, 3.0, formula="scale"),
)


@dataclass(frozen=True)
class Size:
    """How many prompts in how many sets of seeds for the main settings and for the rest."""

    name: str
    settings: tuple[Setting, ...]
    sets: int
    main_prompts: int
    prompts: int
    model_prompts: int  # for question 0, with one image each
    prediction_images: int  # for question 3

    def prompts_of(self, setting: Setting) -> int:
        """Prompts of each set; the sets but the first are sampled by main settings alone."""
        return self.main_prompts if setting.main else self.prompts

    def sets_of(self, setting: Setting) -> int:
        return self.sets if setting.main else 1


# 1,008 images of main settings, 256 of the rest
FULL = Size("full", SETTINGS, sets=3, main_prompts=84, prompts=64, model_prompts=1008, prediction_images=64)
# 256 images of all, at beta 5; rules and places at alpha 1.2
DEFAULT = Size(
    "default",
    (*(s for s in (*MAIN, *GRID) if s is BASELINE or s.beta == 5.0), *(s for s in (*RULES, *PLACES) if s.alpha == 1.2)),
    sets=1, main_prompts=64, prompts=64, model_prompts=256, prediction_images=32,
)  # fmt: skip
QUICK = Size(
    "quick",
    (BASELINE, *(static(alpha, 5.0, main=True) for alpha in (0.8, 1.05, 1.2))),
    sets=1, main_prompts=16, prompts=16, model_prompts=32, prediction_images=4,
)  # fmt: skip
