"""Log lines: whole, bounded, of one form, and harmless where they cannot be written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

WRITER = """
import logging, sys, structlog
from concurrent.futures import ThreadPoolExecutor
from store import logs

with open(sys.argv[1], "ab", buffering=0) as file:
    logs.configure(file.fileno(), libraries=logging.INFO)
    ours, theirs = structlog.get_logger(), logging.getLogger("library")
    def speak(number):
        ours.info("ours.said", number=number, text="x" * 9000)
        theirs.info("theirs %d %s", number, "y" * 9000)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(speak, range(100)))
    ours.info("long.said", text="\\ud800\\x1b" + "z" * 700_000)
    try:
        raise ValueError("v" * 700_000)
    except ValueError:
        ours.exception("trace.said")
print("done")
"""


def test_lines_of_two_processes_and_their_threads_are_whole(tmp_path: Path):
    target = tmp_path / "log.txt"
    target.touch()
    command = [sys.executable, "-c", WRITER, str(target)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    assert [writer.communicate()[0] for writer in writers] == [b"done\n"] * 2
    lines = [json.loads(line) for line in target.read_bytes().splitlines()]
    assert len(lines) == 404
    assert {line["event"] for line in lines} >= {"ours.said", "long.said", "trace.said"}
    assert max(map(len, map(json.dumps, lines))) < 130_000


def test_a_log_that_cannot_be_written_ends_nothing():
    command = [sys.executable, "-c", WRITER, "/dev/full"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"done\n"
