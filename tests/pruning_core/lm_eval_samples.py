"""What lm-evaluation-harness answers item by item: prints one line of JSON. A process of its own, offline."""

from __future__ import annotations

import json
import sys

if __name__ == "__main__":
    import lm_eval
    from lm_eval.tasks import TaskManager

    folder, tasks_dir, limit, *names = sys.argv[1:]
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": folder, "dtype": "float32"},
        tasks=names,
        limit=int(limit),
        device="cpu",
        batch_size=4,
        task_manager=TaskManager(include_path=tasks_dir, include_defaults=False),
        bootstrap_iters=0,
    )
    answers = {
        task: [
            {
                "scores": [score for ((score, _greedy),) in sample["resps"]],
                "acc": sample["acc"],
                "acc_norm": sample["acc_norm"],
            }
            for sample in sorted(samples, key=lambda sample: sample["doc_id"])
        ]
        for task, samples in found["samples"].items()
    }
    sys.stdout.write("\n" + json.dumps(answers) + "\n")
