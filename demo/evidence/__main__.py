"""`python3 -m demo.evidence`: what Circulation does to fidelity and diversity, measured on the avatar model."""

import argparse
import json
import os

from ..environment import prepare

REQUIREMENTS = ["pandas", "scipy", "scikit-learn", "statsmodels", "torch-fidelity", "vendi-score"]

parser = argparse.ArgumentParser(prog="python3 -m demo.evidence", description=__doc__)
study = parser.add_mutually_exclusive_group()
for name, what in {
    "quick": "four settings, 64 images each; fails where a claim of EVIDENCE.md does not show",
    "full": "1,008 images of each main setting, 256 of all others: two to three hours on 2 cores",
    "seeds": "whether the best of a prompt's seeds can be told before it is done, by its stability or by a preview",
    "pairs": "pictures without and with Circulation, for changes that one in 2, 4, 10 and 50 reach",
    "models": "the study of five models: trains them, samples and measures, three hours on 2 cores with AMX; resumes",
    "doses": "before it: how far other knobs must be turned to change images as much",
}.items():
    study.add_argument(f"--{name}", dest="study", action="store_const", const=name, help=what)
parser.add_argument("--jobs", type=int, help="processes that sample at the same time (default: one for each core)")
parser.add_argument("--output", type=os.path.abspath, help="folder for images and results (default: demo/output/evidence)")
parser.add_argument("--publish", action="store_true", help="write to demo/evidence/results and into the tables of EVIDENCE.md")
parser.set_defaults(study="default")

MODULES = {"seeds": "evidence.seeds", "pairs": "evidence.pairs", "models": "replication.main", "doses": "replication.doses"}

if __name__ == "__main__":
    options = parser.parse_args()
    environment = prepare(REQUIREMENTS, "the tools of the evidence")
    module = MODULES.get(options.study, "evidence.main")
    raise SystemExit(environment.run("-m", f"circulation_demo.{module}", json.dumps(vars(options))))
