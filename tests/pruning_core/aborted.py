"""Ends as a process does whose library in C or Rust aborts."""

import os

if __name__ == "__main__":
    os.abort()
