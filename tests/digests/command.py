"""Writes or compares digests, in the prepared environment: see `__main__.py`."""

import platform
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import support.host  # noqa: F401  first: it finds ComfyUI

import comfyui_version
import torch
from digests import cases, comparison


def setting() -> dict:
    """What the bits depend on beside the code."""
    return dict(
        torch=torch.__version__,
        comfyui=comfyui_version.__version__,
        machine=platform.machine(),
        cpu=cpu(),
        capability=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
    )


def cpu() -> str:
    """The name of the processor: libraries choose their kernels by it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def main(command: str, file: str, only: str) -> int:
    path = Path(file)
    try:
        before = comparison.read(path, setting()) if command == "compare" else {}
    except (OSError, ValueError) as error:
        print(error)
        return 2
    after = cases.digests(only)
    if command == "write":
        comparison.write(path, setting(), after)
        print(f"{len(after)} digests written to {path}")
        return 0
    if only:
        before = {name: digest for name, digest in before.items() if name in after}
    lines = comparison.differences(before, after)
    new = len(after.keys() - before.keys())
    print(*lines, f"{len(lines)} of {len(before)} digests in {path} differ{f', {new} new ones are not in it' * bool(new)}", sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
