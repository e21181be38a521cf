"""Runs a module as `python -m MODULE` does, while what it starts itself as `sys.executable` is another executable.

Run as `python -m tests.warm.within EXECUTABLE MODULE ...`.
"""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    sys.executable, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
