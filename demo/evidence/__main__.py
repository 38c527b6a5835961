"""`python3 -m demo.evidence`: what Circulation does to fidelity and diversity, measured on the avatar model."""

import argparse
import json
import os

from ..environment import prepare

REQUIREMENTS = ["pandas", "scipy", "scikit-learn", "statsmodels", "torch-fidelity", "vendi-score"]

parser = argparse.ArgumentParser(prog="python3 -m demo.evidence", description=__doc__)
size = parser.add_mutually_exclusive_group()
quick = "four settings, 64 images each; fails where a claim of EVIDENCE.md does not show"
full = "1,008 images of each main setting, 256 of all others"
size.add_argument("--quick", dest="size", action="store_const", const="quick", help=quick)
size.add_argument("--full", dest="size", action="store_const", const="full", help=full)
size.add_argument("--models", action="store_true", help="the study of five models: trains them, samples and measures; resumes")
size.add_argument("--doses", action="store_true", help="before it: how far other knobs must be turned to change images as much")
parser.add_argument("--jobs", type=int, help="processes that sample at the same time (default: one for each core)")
parser.add_argument("--output", type=os.path.abspath, help="folder for images and results (default: demo/output/evidence)")
parser.add_argument("--publish", action="store_true", help="write to demo/evidence/results and into the tables of EVIDENCE.md")
parser.set_defaults(size="default")

if __name__ == "__main__":
    options = parser.parse_args()
    environment = prepare(REQUIREMENTS, "the tools of the evidence")
    module = "replication.doses" if options.doses else "replication.main" if options.models else "evidence.main"
    raise SystemExit(environment.run("-m", f"circulation_demo.{module}", json.dumps(vars(options))))
