"""The real ComfyUI server as a child process, with the pack in its `custom_nodes`, and the little that is needed to talk to it."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from . import ROOT

PACK = "attention-circulation"


class ServerError(RuntimeError):
    pass


class Server:
    """`with Server(comfy, base) as server: server.run(prompt)`. `base` gets ComfyUI's folders (models, input, output, ...).

    `packs` are folders of further custom nodes.
    """

    patience = 300  # seconds that the start or an answer may take

    def __init__(self, comfy, base, *, python=sys.executable, cpu=True, packs=(), arguments=(), log=None):
        self.base = Path(base).resolve()
        self.packs = {PACK: ROOT, **{Path(pack).name: Path(pack) for pack in packs}}
        self.log = Path(log or self.base / "server.log")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen  # from __enter__ on
        self.command = [
            str(python), str(Path(comfy) / "main.py"),
            *(["--cpu"] if cpu else []),
            "--listen", "127.0.0.1",
            "--port", str(self.port),
            "--base-directory", str(self.base),
            "--database-url", f"sqlite:///{self.base / 'comfy.db'}",
            "--disable-api-nodes",
            *arguments,
        ]

    def __enter__(self):
        prepare_base(self.base, self.packs)
        # Threads that wait by spinning take the cores from each other as soon as anything else runs.
        variables = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        variables.pop("PYTHONPATH", None)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_until_ready(self):
        end = time.monotonic() + self.patience
        while time.monotonic() < end:
            self.check_alive()
            try:
                return self.get("/queue")
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise ServerError(f"ComfyUI did not answer within {self.patience} s.\n{self.log_tail()}")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def check_alive(self):
        if self.process.poll() is not None:
            raise ServerError(f"ComfyUI ended with exit status {self.process.returncode}.\n{self.log_tail()}")

    def log_tail(self, count=40):
        tail = self.log.read_text(errors="replace").splitlines()[-count:]
        return "\n".join([*tail, f"The whole log: {self.log}"])

    def get(self, path, **query):
        return json.loads(self.get_bytes(path, **query))

    def get_bytes(self, path, **query):
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=self.patience) as answer:
            return answer.read()

    def post(self, path, value):
        request = urllib.request.Request(self.url + path, json.dumps(value).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.patience) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise ServerError(refusal(error.read())) from None
        return json.loads(text) if text else None

    def object_info(self):
        return self.get("/object_info")

    def queue(self, prompt):
        """Queue a prompt in API form and return its id. Raises ServerError with ComfyUI's words when it is not valid."""
        answer = self.post("/prompt", {"prompt": prompt})
        if answer["node_errors"]:  # ComfyUI runs what is left of a prompt without its invalid parts
            raise ServerError(complaints(answer))
        return answer["prompt_id"]

    def wait(self, prompt_id, progress=None):
        """Outputs by node id once the prompt has run. `progress(done, of)` follows the sampling steps."""
        start, shown = self.log.stat().st_size, None
        while True:
            self.check_alive()
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            steps = sampling_steps(self.log, start) if progress else None
            if steps is not None and steps != shown:
                shown = steps
                progress(*steps)
            if entry:
                raise_if_failed(entry["status"])
                return entry["outputs"]
            time.sleep(0.1)

    def run(self, prompt, progress=None):
        return self.wait(self.queue(prompt), progress)

    def image(self, output):
        """The bytes of an entry of `outputs[node]["images"]`."""
        return self.get_bytes("/view", **{key: output[key] for key in ("filename", "subfolder", "type")})


def prepare_base(base: Path, packs: dict[str, Path]):
    for folder in ("custom_nodes", "input", "models/checkpoints", "output", "user"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for name, source in packs.items():
        pack = base / "custom_nodes" / name
        if os.path.lexists(pack):
            pack.unlink()
        link(pack, source)


def link(pack: Path, source: Path):
    if os.name == "nt":  # where links need a right that junctions do not
        import _winapi

        _winapi.CreateJunction(str(source), str(pack))  # type: ignore[attr-defined]
    else:
        pack.symlink_to(source, target_is_directory=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def sampling_steps(log: Path, start):
    """The last "7/20" of the progress bar that ComfyUI writes while it samples, or None."""
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - 4000))
        found = re.findall(rb"\| *(\d+)/(\d+) \[", file.read())
    return tuple(map(int, found[-1])) if found else None


def refusal(answer: bytes):
    try:
        reasons = json.loads(answer)
        messages = [reasons["error"]["message"], reasons["error"].get("details", ""), complaints(reasons)]
        return "\n".join(filter(None, messages))
    except (ValueError, KeyError, TypeError):
        return str(answer)


def complaints(answer):
    nodes = (answer.get("node_errors") or {}).values()
    return "\n".join(f"{node['class_type']}: {error['message']}: {error['details']}" for node in nodes for error in node["errors"])


def raise_if_failed(status):
    for event, data in status["messages"]:
        if event == "execution_error":
            raise ServerError(f"{data['node_type']}: {data['exception_message'].strip()}")
        if event == "execution_interrupted":
            raise ServerError("The run was interrupted.")
