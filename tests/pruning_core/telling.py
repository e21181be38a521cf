"""A helper process: tells how far it is, is silent for a while where it is asked to, and answers."""

import sys
import time

from pruning_core.system import subprocesses

if __name__ == "__main__":
    for number in range(1, 4):
        subprocesses.report_progress(number, 3, "tensor", number / 3)
    time.sleep(float(sys.argv[1]))
    sys.stdout.write("noise of a library\n")
    sys.stdout.write("the answer\n")
