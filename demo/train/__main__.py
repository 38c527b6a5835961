"""`python3 -m demo.train`: draws the avatars and trains the model in the box, and the classifier of the evidence, again."""

import argparse
import json
import os

from ..environment import prepare

parser = argparse.ArgumentParser(prog="python3 -m demo.train", description=__doc__)
parser.add_argument("--steps", type=int, help="of training the model (default: STEPS in train.py)")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--threads", type=int, help="CPU threads (default: one for each core)")
parser.add_argument("--output", type=os.path.abspath, help="train a model alone, on the avatars in demo/model, into this file")
parser.add_argument("--install", action="store_true", help="put the result in the place of the files in demo/model")

if __name__ == "__main__":
    options = parser.parse_args()
    raise SystemExit(prepare().run("-m", "circulation_demo.train.main", json.dumps(vars(options))))
