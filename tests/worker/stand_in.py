"""A child that speaks the runner's protocol and keeps the runner's files, in milliseconds rather than minutes.

    stand_in.py SCRIPT JOB EPOCH FOLDER

SCRIPT is JSON: {"blocks": 5, "seconds": 0.2, "journal": path, "end": one of ENDS, "at": epoch it applies to}.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from pruning_core.spec.progress import Progress
from pruning_core.spec.report_parts.files import FileEntry
from pruning_core.spec.report_parts.removal import BlockReport
from tests.worker.samples import sample_report
from worker.failures import explain
from worker.orphan import die_with
from worker.protocol import (
    EXIT_DRAINED,
    Attempt,
    Failed,
    Progressed,
    Resolved,
    Succeeded,
    encode,
)

stop = threading.Event()


def say(message: Any) -> None:
    sys.stdout.buffer.write(encode(message))
    sys.stdout.buffer.flush()


def prune(folder: Path, script: dict[str, Any], epoch: int) -> None:
    """Do the blocks that the ledger lacks; a line in the journal for each that is begun."""
    ledger = folder / "work" / "ledger.json"
    done = json.loads(ledger.read_text()) if ledger.exists() else []
    for block in range(script["blocks"]):
        if block not in done:
            with Path(script["journal"]).open("a") as journal:
                journal.write(f"{epoch} {block}\n")
            time.sleep(script["seconds"])
            path = folder / "work" / f"block-{block:05d}.safetensors"
            path.write_bytes(b"block %d" % block)
            done.append(block)
            draft = ledger.with_suffix(".tmp")
            draft.write_text(json.dumps(done))
            draft.replace(ledger)
            say(Progressed(progress=progress(block, script["blocks"])))
        if stop.is_set():
            sys.exit(EXIT_DRAINED)


def progress(block: int, blocks: int) -> Progress:
    return Progress(
        phase="pruning",
        step=block + 1,
        total_steps=blocks,
        percent=100 * (block + 1) / blocks,
        block=BlockReport(block=block, seconds=0, file="", sha256="", bytes=0, matrices=()),
    )


def finish(folder: Path, attempt: Attempt, script: dict[str, Any], *, lie: bool) -> None:
    checkpoint = folder / "checkpoint"
    (checkpoint / "sub").mkdir(parents=True, exist_ok=True)
    contents = {f"sub/part-{n}.bin": b"weights %d" % n for n in range(script.get("files", 2))} | {
        "config.json": b"{}"
    }
    for name, content in contents.items():
        (checkpoint / name).write_bytes(content)
    files = [
        FileEntry(
            path=name,
            bytes=len(content),
            sha256=sha256(content).hexdigest(),
            media_type="application/octet-stream",
        )
        for name, content in contents.items()
    ]
    if lie:
        (checkpoint / "config.json").write_bytes(b"[]")
    report = sample_report(
        attempt.prune,
        files,
        sample=script.get("sample", "Hello"),
        kept_ria=script.get("kept_ria", False),
    )
    (folder / "report.json").write_text(report.model_dump_json())
    (folder / "report.html").write_text("<!DOCTYPE html>")
    say(Succeeded(report=report))


def helper() -> int:
    """Start a process of the group that ignores SIGTERM and holds stdout open; return its id."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    return subprocess.Popen([sys.executable, "-c", code]).pid


def end(kind: str, script: dict[str, Any]) -> None:
    match kind:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "abandon":
            Path(script["journal"]).with_suffix(".helper").write_text(str(helper()))
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            sys.exit(3)
        case "silent":
            sys.exit(0)
        case "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            Path(script["journal"]).with_suffix(".helper").write_text(str(helper()))
            time.sleep(60)
        case "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        case "memory":
            raise MemoryError
        case "defect":
            raise RuntimeError("the user must not read this")
        case "garbage":
            sys.stdout.buffer.write(
                b'\xff\x00 not json\n{"type": "progress"}\n[]\n' + b"x" * 200_000
            )
            sys.stdout.buffer.write(b'\n{"type":"failed","error":{}}\n')
            sys.stdout.buffer.flush()


def main() -> None:
    script, epoch, folder = json.loads(sys.argv[1]), int(sys.argv[3]), Path(sys.argv[4])
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    attempt = Attempt.model_validate_json((folder / "attempt.json").read_text())
    die_with(attempt.parent)
    say(Resolved(resolved={"seed": 42}))
    if script.get("environment"):
        Path(script["environment"]).write_text(Path("/proc/self/environ").read_text())
    try:
        faulty = epoch <= script.get("until", 1_000_000)
        end(script.get("first", "") if faulty else "", script)
        prune(folder, script, epoch)
        end(script["end"] if faulty else "", script)
        finish(folder, attempt, script, lie=faulty and script["end"] == "lie")
    except Exception as error:
        sys.stderr.write(f"trace of {error!r}\n")
        say(Failed(error=explain(error).payload()))
        sys.exit(1)


if __name__ == "__main__":
    main()
