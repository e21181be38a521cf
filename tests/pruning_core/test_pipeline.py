"""One run of the library: what it leaves behind, what it refuses, how it resumes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning_core.errors import (
    DatasetTooSmall,
    DiskFull,
    HostOutOfMemory,
    ModelInvalid,
    ModelNotFinite,
    OutputDoesNotLoad,
    PruningError,
    ResumeMismatch,
    TokensInvalid,
    UnsupportedPattern,
)
from pruning_core.evaluate import verify
from pruning_core.pipeline import phases as pipeline
from pruning_core.pipeline.phases import prune
from pruning_core.spec.progress import Progress
from pruning_core.spec.report import Report
from pruning_core.system import subprocesses
from tests import tiny
from tests.pruning_core.runs import Watcher, spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("dense") / "llama", "llama")


@pytest.fixture(scope="module")
def watched(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Watcher, Path]:
    """A whole run on the built-in text."""
    out = tmp_path_factory.mktemp("watched")
    watcher = Watcher()
    calibration = {"tasks": [{"name": "python_docs", "samples": 8}], "seq_len": 64}
    started = time.perf_counter()
    report = prune(
        folder,
        spec(calibration=calibration, evaluation={"windows": 4, "seq_len": 64}),
        out,
        observer=watcher,
    )
    # every second belongs to one phase
    assert sum(report.timing.phases.values()) <= time.perf_counter() - started
    return report, watcher, out


def test_the_report_tells_what_was_won_and_lost(watched: tuple[Report, Watcher, Path]) -> None:
    report, _, out = watched
    (measured,) = report.perplexity
    assert measured.task == "python_docs"
    assert measured.tokens == 4 * 63
    assert measured.dense is not None
    assert measured.dense > 1
    assert measured.pruned > 1
    assert report.sparsity == 0.5
    assert 0 < report.sparsity_model < 0.5
    assert report.parameters_nonzero == report.parameters - sum(
        matrix.zeros for block in report.blocks for matrix in block.matrices
    )
    assert report.bytes_before == report.bytes_after
    assert report.calibration is not None
    assert report.calibration.tokens == 8 * 64
    assert report.timing.prune_over_forward is not None
    assert set(report.timing.phases) >= {"pruning", "saving", "verifying", "evaluating_dense"}
    assert any("no smaller" in warning for warning in report.warnings)
    assert json.loads((out / "report.json").read_text())["fingerprint"] == report.fingerprint
    assert not (out / "work").exists()


def test_the_manifest_names_every_file_with_its_digest(
    watched: tuple[Report, Watcher, Path],
) -> None:
    report, _, out = watched
    listed = {entry.path: entry for entry in report.files}
    assert set(listed) == {path.name for path in (out / "checkpoint").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(listed)
    sums = subprocess.run(
        ["sha256sum", *sorted(listed)],
        cwd=out / "checkpoint",
        capture_output=True,
        text=True,
        check=True,
    )
    for line in sums.stdout.splitlines():
        digest, name = line.split(maxsplit=1)
        assert listed[name].sha256 == digest


def test_progress_rises_to_the_end_block_by_block(watched: tuple[Report, Watcher, Path]) -> None:
    _, watcher, _ = watched
    percents = [progress.percent for progress in watcher.seen]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert watcher.pruned_blocks() == [0, 1, 2]
    phases = [progress.phase for progress in watcher.seen]
    assert list(dict.fromkeys(phases)) == [
        "preparing",
        "evaluating",
        "calibrating",
        "pruning",
        "saving",
        "verifying",
        "reporting",
    ]


def test_every_phase_counts_what_it_does(watched: tuple[Report, Watcher, Path]) -> None:
    report, watcher, out = watched
    ends = {
        (one.phase, one.unit): one.total_steps
        for one in watcher.seen
        if one.step == one.total_steps
    }
    files = sum(path.stat().st_size for path in (out / "checkpoint").iterdir())
    assert ends["preparing", "byte"] > report.bytes_before
    assert ends["evaluating", "token"] == 4 * 64
    assert ends["pruning", "block"] == tiny.BLOCKS
    assert ends["saving", "byte"] == report.bytes_after
    assert ends["verifying", "tensor"] > 0
    assert ends["reporting", "byte"] == files


def test_an_equal_run_over_a_finished_folder_returns_its_report(
    watched: tuple[Report, Watcher, Path], folder: Path
) -> None:
    report, _, out = watched
    again = Watcher()
    assert prune(folder, report.spec, out, observer=again) == report
    assert {progress.phase for progress in again.seen} == {"preparing"}


def test_each_block_is_pruned_once_across_two_kills(folder: Path, tmp_path: Path) -> None:
    watchers = [Watcher(stop_after=0), Watcher(stop_after=1), Watcher()]
    for watcher in watchers[:2]:
        with pytest.raises(KeyboardInterrupt):
            prune(folder, spec(), tmp_path, tokens=tiny.tokens(), observer=watcher)
    report = prune(folder, spec(), tmp_path, tokens=tiny.tokens(), observer=watchers[2])
    assert [watcher.pruned_blocks() for watcher in watchers] == [[0], [1], [2]]
    assert report.resumed_blocks == 2


def test_a_block_file_holds_what_was_pruned_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    """Norms and biases go from the source to the result untouched, whatever arithmetic the device uses."""
    watcher = Watcher(stop_after=0)
    with pytest.raises(KeyboardInterrupt):
        prune(folder, spec(), tmp_path, tokens=tiny.tokens(), observer=watcher)
    stored = load_file(tmp_path / "work" / "block-00000.safetensors")
    (block,) = (progress.block for progress in watcher.seen if progress.block)
    assert set(stored) == {matrix.name for matrix in block.matrices}


def test_signs_of_life_come_within_a_block(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pruning_core.system.progress.MESSAGE_SECONDS", 0.0)
    listener = Watcher(stop_after=0)
    with pytest.raises(KeyboardInterrupt):
        prune(folder, spec(), tmp_path, tokens=tiny.tokens(), observer=listener)
    # both passes over the calibration windows, and every matrix, before the first block was done
    within = [progress.batches for progress in listener.seen if progress.phase == "pruning"]
    assert within[:-1] == list(range(len(within) - 1))
    assert len(within) > 2 + 7  # matrices of a block of Llama
    assert within[-1] == 0


def test_a_damaged_block_is_pruned_again(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prune(folder, spec(), tmp_path, tokens=tiny.tokens(), observer=Watcher(stop_after=1))
    block = tmp_path / "work" / "block-00001.safetensors"
    block.write_bytes(block.read_bytes()[:-1] + b"\x01")
    watcher = Watcher()
    prune(folder, spec(), tmp_path, tokens=tiny.tokens(), observer=watcher)
    assert watcher.pruned_blocks() == [1, 2]


@pytest.mark.parametrize(
    ("changes", "seed"), [({"sparsity": 0.25}, 1), ({"pattern": "matrix"}, 1), ({}, 2)]
)
def test_blocks_of_another_run_are_never_mixed_in(
    changes: dict[str, Any], seed: int, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        prune(folder, spec(), tmp_path, tokens=tiny.tokens(), observer=Watcher(stop_after=0))
    with pytest.raises(ResumeMismatch):
        prune(folder, spec(**changes), tmp_path, tokens=tiny.tokens(seed=seed))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_survivors_keep_the_checkpoints_dtype_and_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "half", "llama", dtype=dtype)
    prune(folder, spec(), tmp_path / "out", tokens=tiny.tokens())
    before = load_file(folder / "model.safetensors")
    after = load_file(tmp_path / "out" / "checkpoint" / "model.safetensors")
    for name, tensor in after.items():
        assert tensor.dtype == dtype
        kept = tensor != 0
        assert torch.equal(tensor[kept], before[name][kept])


def test_small_shards_come_with_an_index(folder: Path, tmp_path: Path) -> None:
    big = tiny.save(tmp_path / "big", "llama", hidden_size=256, intermediate_size=512)
    report = prune(
        big, spec(output={"shard_bytes": 1_000_000}), tmp_path / "out", tokens=tiny.tokens()
    )
    shards = [entry for entry in report.files if entry.path.endswith(".safetensors")]
    assert len(shards) > 3
    assert any(entry.path == "model.safetensors.index.json" for entry in report.files)
    assert report.verification.max_logit_difference <= 1e-6


def test_magnitude_needs_no_calibration_and_makes_no_note_of_it(
    folder: Path, tmp_path: Path
) -> None:
    report = prune(folder, spec(method="magnitude"), tmp_path)
    assert report.calibration is None
    assert report.timing.prune_over_forward is None
    assert not any("calibrat" in warning for warning in report.warnings)
    assert report.origin.model == str(folder)
    assert report.started_at < report.finished_at
    assert "of the parameters are zeros" in report.summary


def test_an_expert_that_no_token_reaches_is_pruned_by_magnitude_with_a_warning(
    tmp_path: Path,
) -> None:
    folder = tiny.save(tmp_path / "moe", "mixtral", num_local_experts=8, num_experts_per_tok=1)
    report = prune(folder, spec(), tmp_path / "out", tokens=tiny.tokens(1, 2))
    assert any("never reached its input" in warning for warning in report.warnings)
    assert report.sparsity == 0.5


def test_nan_weights_are_an_error_that_names_the_tensor(folder: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(folder, tmp_path / "bad"))
    tensors = load_file(bad / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, bad / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelNotFinite, match=r"layers\.1\.mlp\.up_proj"):
        prune(bad, spec(), tmp_path / "out", tokens=tiny.tokens())
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_a_tensor_of_another_shape_than_the_config_is_an_error(
    folder: Path, tmp_path: Path
) -> None:
    bad = Path(shutil.copytree(folder, tmp_path / "bad"))
    config = json.loads((bad / "config.json").read_text())
    (bad / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(ModelInvalid, match="calls for"):
        prune(bad, spec(), tmp_path / "out", tokens=tiny.tokens())


@pytest.mark.parametrize(
    "tokens",
    [
        torch.zeros(2, 8, dtype=torch.int32),
        torch.zeros(8, dtype=torch.int64),
        torch.zeros(0, 8, dtype=torch.int64),
        torch.full((1, 8), tiny.VOCAB),
        torch.full((1, 8), -1),
        torch.zeros(1, 512, dtype=torch.int64),
    ],
)
def test_bad_tokens_are_refused(tokens: torch.Tensor, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TokensInvalid):
        prune(folder, spec(), tmp_path, tokens=tokens)


def test_more_samples_than_the_text_fills_are_refused_with_what_there_is(
    folder: Path, tmp_path: Path
) -> None:
    calibration = {"tasks": [{"name": "python_docs", "samples": 60_000}], "seq_len": 256}
    with pytest.raises(DatasetTooSmall, match=r"gives \d+ samples, of 256 tokens; 60000"):
        prune(folder, spec(calibration=calibration), tmp_path)


def test_a_pattern_that_does_not_fit_the_model_is_refused(folder: Path, tmp_path: Path) -> None:
    pattern = {"name": "n:m", "n": 3, "m": 5}
    with pytest.raises(UnsupportedPattern, match="groups of 5"):
        prune(folder, spec(sparsity=None, pattern=pattern), tmp_path, tokens=tiny.tokens())


def test_too_little_disk_is_an_error_before_any_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    watcher = Watcher()
    with pytest.raises(DiskFull, match="1000 are free"):
        prune(folder, spec(), tmp_path, tokens=tiny.tokens(), observer=watcher)
    assert {step.phase for step in watcher.seen} == {"preparing"}


def test_a_disk_that_fills_up_leaves_no_checkpoint(folder: Path, tmp_path: Path) -> None:
    """A file-size limit stands in for a full disk: both end a write in the middle of a block file."""
    code = (
        "import errno, resource, signal, sys; from pathlib import Path\n"
        "import pruning_core.pipeline as p; from tests.pruning_core.runs import spec, tiny\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: p.prune(Path(sys.argv[1]), spec(), Path(sys.argv[2]), tokens=tiny.tokens())\n"
        "except Exception as e: print(type(e).__name__)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, folder, tmp_path], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "DiskFull", result.stderr[-2000:]
    assert not (tmp_path / "checkpoint").exists()
    assert not list((tmp_path / "work").glob("*.tmp"))


def test_a_report_never_vouches_for_the_checkpoint_of_another_run(
    folder: Path, tmp_path: Path
) -> None:
    evaluation = {"windows": 1, "seq_len": 32}

    class StopBeforeTheReport(Watcher):
        def progress(self, progress: Progress) -> None:
            super().progress(progress)
            if progress.phase == "evaluating" and (tmp_path / "checkpoint").exists():
                raise KeyboardInterrupt

    first = spec(evaluation=evaluation | {"baseline": False})
    other = spec(sparsity=0.25, evaluation=evaluation | {"baseline": False})
    prune(folder, first, tmp_path, tokens=tiny.tokens())
    with pytest.raises(KeyboardInterrupt):
        prune(folder, other, tmp_path, tokens=tiny.tokens(), observer=StopBeforeTheReport())
    assert not (tmp_path / "report.json").exists()
    shutil.rmtree(tmp_path / "work")
    report = prune(folder, first, tmp_path, tokens=tiny.tokens())
    weights = load_file(tmp_path / "checkpoint" / "model.safetensors")
    name = report.blocks[0].matrices[0].name
    assert (weights[name] == 0).sum() * 2 == weights[name].numel()


def test_a_resume_needs_no_room_for_what_is_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        prune(folder, spec(), tmp_path, tokens=tiny.tokens(), observer=Watcher(stop_after=1))
    there = sum(path.stat().st_size for path in (tmp_path / "work").glob("block-*"))
    size = (folder / "model.safetensors").stat().st_size
    usage = shutil.disk_usage(tmp_path)._replace(free=int(2.1 * size) - there)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert prune(folder, spec(), tmp_path, tokens=tiny.tokens()).resumed_blocks == 2


def test_a_helper_that_the_machine_kills_is_no_fault_of_the_model() -> None:
    with pytest.raises(HostOutOfMemory):
        subprocesses.run("tests.pruning_core.killed")
    with pytest.raises(subprocesses.HelperFailed, match="No module named"):
        subprocesses.run("tests.pruning_core.nowhere")


@pytest.mark.full
def test_peak_memory_does_not_grow_with_depth(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import pruning_core.pipeline as p\n"
        "from tests.pruning_core.runs import spec, tiny\n"
        "r = p.prune(Path(sys.argv[1]), spec(), Path(sys.argv[2]), tokens=tiny.tokens())\n"
        "print(r.peak_memory_bytes['host'], r.bytes_before)\n"
    )
    peaks, sizes = [], []
    for depth in (2, 20):
        folder = tmp_path / f"depth-{depth}"
        tiny.save(folder, "llama", hidden_size=512, intermediate_size=2048, num_hidden_layers=depth)
        command = [sys.executable, "-c", code, str(folder), f"{folder}-out"]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peak, size = map(int, result.stdout.split())
        peaks.append(peak)
        sizes.append(size)
    block = (sizes[1] - sizes[0]) / 18
    # eighteen blocks more, and less than three blocks more memory: allocators round up
    assert peaks[1] - peaks[0] < 3 * block


def test_a_result_that_answers_otherwise_is_refused(folder: Path, tmp_path: Path) -> None:
    tokens = verify.probe_tokens(tiny.VOCAB, 256)
    wrong = torch.zeros(1, tokens.shape[1], tiny.VOCAB)
    with pytest.raises(OutputDoesNotLoad, match="differ"):
        verify.check(
            folder, tmp_path / "probe.safetensors", tokens, wrong + 1, device=torch.device("cpu")
        )


def test_a_result_that_does_not_load_is_refused(tmp_path: Path) -> None:
    tokens = verify.probe_tokens(tiny.VOCAB, 256)
    with pytest.raises(OutputDoesNotLoad, match="cannot use the result"):
        verify.check(
            tmp_path,
            tmp_path / "probe.safetensors",
            tokens,
            torch.ones(1, 48, 4),
            device=torch.device("cpu"),
        )


def test_a_failed_verification_leaves_no_visible_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "TOLERANCE", {torch.float32: -1.0})
    with pytest.raises(OutputDoesNotLoad):
        prune(folder, spec(), tmp_path, tokens=tiny.tokens())
    assert not (tmp_path / "checkpoint").exists()


def test_every_error_has_a_code_of_its_own() -> None:
    def below(cls: type[PruningError]) -> list[type[PruningError]]:
        return [cls, *(found for sub in cls.__subclasses__() for found in below(sub))]

    own = [
        cls
        for cls in below(PruningError)
        if cls.__module__ == "pruning_core.errors" and "code" in vars(cls)
    ]
    codes = [cls.code for cls in own]
    assert len(codes) == len(set(codes))
    assert pipeline.__doc__
