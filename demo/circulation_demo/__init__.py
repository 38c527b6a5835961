"""What `python3 -m demo`, `demo.evidence` and `demo.train` run in the environment that they prepare, as one package.

`environment.py` puts the folder above it on Python's path, and nothing else of this repository.
"""

from pathlib import Path

DEMO = Path(__file__).resolve().parents[1]
ROOT = DEMO.parent
