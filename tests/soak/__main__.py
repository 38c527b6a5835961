"""`python3 -m tests.soak`: hundreds of runs on a real server, most of which end badly, and what they leave behind: nothing.

Runs that end well, interrupts, simulated lack of memory, failing attentions and nodes, cleared queues, two clients. The images of a
reference set are the same bytes before, after, and on a fresh server; memory, tensors and files do not grow.
"""

import argparse
from pathlib import Path

from tests.__main__ import run_module

parser = argparse.ArgumentParser(prog="python3 -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--runs", type=int, default=300)
parser.add_argument("--minutes", type=float, default=60, help="stop after so many minutes, if there are runs left")
parser.add_argument("--seed", type=int, default=0)

if __name__ == "__main__":
    options = parser.parse_args()
    run_module(Path(__file__).with_name("command.py"), [options.runs, options.minutes, options.seed])
