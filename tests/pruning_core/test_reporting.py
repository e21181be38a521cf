"""The report for people and the model card, from reports of many shapes."""

from __future__ import annotations

import functools
import itertools
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import html5lib
import pytest
from huggingface_hub import ModelCard

from pruning_core.reporting import card, formatting, licence, page
from pruning_core.reporting.by_block import kind_of
from pruning_core.reporting.plots.every import plots
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.quality import GateReport, Interval
from pruning_core.spec.report_parts.speed import SpeedRatio, SpeedReport, Throughput
from tests.pruning_core import reports
from tests.pruning_core.reports import HOSTILE

FINE_TUNING = "What fine-tuning gained; loss is negative log-likelihood, per token"
XHTML = "{http://www.w3.org/1999/xhtml}"
LARGEST_PAGE = 1_500_000

HUGE = reports.report(
    parameters=10**13,
    parameters_nonzero=6 * 10**12,
    bytes_before=2 * 10**13,
    perplexity=(
        reports.perplexity("small", 1.0001, 1e12),
        reports.perplexity("smaller", 1e-9, 3.0),
    ),
    timing={"phases": {"pruning": 1e7}, "prune_over_forward": 1e-7},
)
N_OF_M = {"method": "wanda", "pattern": {"name": "n:m", "n": 2, "m": 4}}
SHAPES: dict[str, Report] = {
    "least": reports.report(),
    "full": reports.full(),
    "one block": reports.full(1),
    "eighty blocks": reports.full(80),
    "no blocks": reports.report(blocks=()),
    "no baseline": reports.full(
        accuracy=(reports.accuracy("medqa", baseline=False),),
        perplexity=(reports.perplexity("python_docs", None, 13.4),),
        speed=SpeedReport(
            dense=None,
            pruned=Throughput(prefill=10.0, decode=1.0),
            prompt_tokens=8,
            new_tokens=4,
        ),
        gates=(),
    ),
    "n:m": reports.report(N_OF_M, perplexity=(reports.perplexity("a", 10.0, 12.0),)),
    "many tasks": reports.full(
        accuracy=tuple(reports.accuracy(f"task_{number}") for number in range(24)),
        perplexity=tuple(reports.perplexity(f"t{number}", 10.0, 12.0) for number in range(24)),
    ),
    "hostile": reports.full(
        2,
        perplexity=(reports.perplexity(HOSTILE, 10.0, 12.0),),
        accuracy=(reports.accuracy(HOSTILE), reports.accuracy("模型\u0301 عربي")),
        warnings=(HOSTILE,),
        device=HOSTILE,
        licence=HOSTILE,
        architecture=HOSTILE,
        versions={HOSTILE: HOSTILE},
        verification={
            "loads_in": {"transformers": "5"},
            "max_logit_difference": 0.0,
            "sample": HOSTILE,
            "dense_sample": HOSTILE,
        },
    ),
    "huge": HUGE,
    "refitted": reports.refitted(),
    "without layers": reports.without_layers(),
    "without tokens": reports.without_tokens(),
    "zeroed": reports.zeroed(),
    "masked residual": reports.masked_residual(),
}
SENTENCES = {
    "refitted": "goa removed 20.1 % of the parameters of a llama model (LlamaForCausalLM): 22.9 % of the neurons "
    "and 1 of 3 key-value groups of every block, with what is left of the read-outs fitted to that (refit), "
    "then fine-tuned (full, 120 steps).",
    "without layers": "layer_drop removed 13.2 % of the parameters of a llama model (LlamaForCausalLM): 5 of 30 blocks.",
    "without tokens": "contextual removed 13.6 % of the parameters of a llama model (LlamaForCausalLM): "
    "0.521 % of the neurons of every block and 63.1 % of the tokens, then fine-tuned without gain (full, 120 steps).",
    "zeroed": "contextual zeroed 10.4 % of the parameters of a llama model (LlamaForCausalLM): "
    "0.868 % of the neurons of all blocks together and quiet rows and columns of single matrices.",
    "masked residual": "diet zeroed 20 % of the parameters of a llama model (LlamaForCausalLM): "
    "20.1 % of the residual dimensions, others in every block.",
}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def report(shape: str) -> Report:
    return SHAPES[shape]


@functools.cache
def shown(shape: str) -> str:
    """The page of a shape, drawn once for all tests."""
    return page.html(SHAPES[shape])


def parsed(text: str) -> Any:
    """The page's tree; a page that breaks the rules of HTML 5 is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=True)
        return parser.parse(text)


def text_of(element: Any) -> str:
    return "".join(element.itertext())


def found(tree: Any, tag: str) -> list[Any]:
    return list(tree.iter(XHTML + tag))


def test_page_is_sound_small_and_needs_nothing_else(shape: str) -> None:
    text = shown(shape)
    tree = parsed(text)
    assert len(text.encode()) < LARGEST_PAGE
    assert not found(tree, "script")
    assert not found(tree, "img")
    assert not found(tree, "link")
    for element in tree.iter():
        for name, value in element.attrib.items():
            plain = str(name).rpartition("}")[2]
            assert not plain.startswith("on")
            if plain in ("src", "href"):
                assert value.startswith("#")
    assert "url(http" not in text
    assert "@import" not in text


def test_errors_of_all_matrices_are_on_the_page_shaded_by_size() -> None:
    """210 matrices: every error in its block's row, the largest in the darkest shade, five named outside."""
    report = SHAPES["full"]
    tables = {
        text_of(found(table, "caption")[0]): table
        for table in found(parsed(shown("full")), "table")
    }
    grid = tables["Relative output error of every matrix"]
    rows = [[text_of(cell) for cell in found(row, "td")] for row in found(grid, "tr")][1:]
    expected = [[formatting.short(m.error or 0) for m in block.matrices] for block in report.blocks]
    assert rows == expected
    shades = {cell.get("class") for cell in found(grid, "td")}
    assert {f"shade-{number}" for number in range(1, 6)} <= shades
    largest = max(m.error or 0 for block in report.blocks for m in block.matrices)
    darkest = [text_of(c) for c in found(grid, "td") if c.get("class") == "shade-5"]
    assert formatting.short(largest) in darkest
    assert len(found(tables["The largest errors"], "tr")) == 1 + 5


def test_errors_of_experts_are_their_mean_and_the_largest() -> None:
    block = reports.blocks(1)[0]
    (first, *_) = block.matrices
    experts = tuple(
        first.model_copy(
            update={"name": f"model.layers.0.mlp.experts.{n}.w1.weight", "error": 0.1 * n}
        )
        for n in (1, 2, 6)
    )
    made = block.model_copy(update={"matrices": experts})
    text = text_of(parsed(page.html(reports.report(blocks=(made,)))))
    assert "0.300 (0.600)" in text


@pytest.mark.parametrize(
    ("report", "absent"),
    [
        (reports.report(blocks=reports.blocks(1)), "Sparsity by block"),
        (reports.full(ratios=(0.5,) * 30), "Ratio per block"),
        (
            reports.full(perplexity=(reports.perplexity("a", 12.0, 12.0),)),
            "Perplexity before and after",
        ),
        (
            reports.refitted(recovery=reports.fine_tuned().model_copy(update={"history": ()})),
            "Loss while fine-tuning",
        ),
    ],
)
def test_plots_that_show_nothing_are_left_out(report: Report, absent: str) -> None:
    titles = [text_of(one) for one in found(parsed(page.html(report)), "figcaption")]
    assert absent not in titles


def test_accuracy_plots_show_what_guessing_reaches() -> None:
    plot = next(one for one in plots(SHAPES["full"]) if one.title == "Accuracy before and after")
    assert "guessing 25.00" in plot.alternative
    assert ">guessing<" in plot.svg


@pytest.mark.parametrize("shape", ["least", "full", "hostile"])
def test_page_is_the_same_twice(shape: str) -> None:
    assert page.html(SHAPES[shape]) == shown(shape)


def test_page_names_nothing_that_is_not_there(shape: str) -> None:
    text = text_of(found(parsed(shown(shape)), "body")[0])
    assert not re.search(r"\bNone\b|\bnan\b|\binf\b|Interval\(", text)


def test_ids_are_unique_and_every_reference_has_its_target(shape: str) -> None:
    text = shown(shape)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:href="#|url\(#|aria-labelledby=")([^")]+)', text)
    assert set(targets) <= set(ids)


def test_headings_descend_one_by_one_and_tables_say_what_they_are(shape: str) -> None:
    tree = parsed(shown(shape))
    levels = [
        int(match[1])
        for element in tree.iter()
        if (match := re.fullmatch(rf"{re.escape(XHTML)}h(\d)", str(element.tag)))
    ]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for table in found(tree, "table"):
        assert text_of(found(table, "caption")[0]).strip()
        assert all(header.get("scope") in ("row", "col") for header in found(table, "th"))
    for figure in found(tree, "figure"):
        (drawing,) = [one for one in found(figure, "div") if one.get("role") == "img"]
        assert len(drawing.get("aria-label")) > 20


def test_drawings_keep_their_text_and_take_the_page_s_colours(report: Report) -> None:
    for plot in plots(report):
        ElementTree.fromstring(plot.svg.replace("<svg", '<svg xmlns:xlink="x"', 1))
        assert "<text" in plot.svg
        assert "http" not in plot.svg or report is SHAPES["hostile"]
        for colour in re.findall(r"#[0-9a-f]{6}\b", plot.svg):
            pytest.fail(f"{colour} of {plot.title} is no colour of the page")


def test_full_page_has_everything_in_order() -> None:
    report = SHAPES["full"]
    tree = parsed(shown("full"))
    headings = [text_of(one) for one in found(tree, "h2")]
    assert headings == [
        "Mind this", "Quality before and after", "Size and speed", "Plots", "Matrices", "Search",
        "What the model writes", "Data", "Reproducibility", "Files",
    ]  # fmt: skip
    text = text_of(found(tree, "body")[0]).replace("\N{NO-BREAK SPACE}", " ")
    for expected in (
        "crepe removed 50 % of the weights in the pruned matrices of a llama model",
        "with a ratio per block set by owl, refined by dsnot",
        "Missed: 1 of 2 quality gates (medqa.acc_drop).",
        "9.877 (9.481 to 10.27)",
        "1.360 (1.346 to 1.374)",
        "worse, beyond chance",
        "within chance",
        "62.0 % (57.0 to 67.0)",
        "below 0.001",
        "0.6800 ± 0.01000",
        "134,515,008",
        "257 MiB",
        "27.13",
        "57 documents",
        "hub, revision 5f3c",
        "PSF-2.0",
        "Items in both",
        "1 h 3 min",
        "1.1 GiB",
        report.fingerprint,
        report.files[1].sha256,
        '"name": "owl"',
    ):
        assert expected in text, expected
    titles = [text_of(one) for one in found(tree, "h3")]
    assert titles[:7] == [
        "Sparsity by block", "Relative output error by block", "Perplexity before and after",
        "Accuracy before and after", "Accuracy by length-normalised likelihood",
        "Candidates of the search", "Ratio per block",
    ]  # fmt: skip


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("shape", SENTENCES)
def test_one_sentence_says_which_units_went(shape: str) -> None:
    assert plain(formatting.what_was_done(SHAPES[shape])) == SENTENCES[shape]


def test_units_of_some_blocks_are_said_to_be_of_those() -> None:
    blocks = reports.unit_blocks(8, {"neurons": (8, 64)})
    spared = reports.unit_blocks(8, {})
    report = reports.zeroed(blocks=(*spared[:4], *blocks[4:6], *spared[6:]))
    assert "12.5 % of the neurons of 2 of 8 blocks" in plain(formatting.what_was_done(report))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sparsity": 0.2}, "20.1 % of the parameters (20 % asked for)"),
        (
            {"budget": {"parameters": 107_000_000}},
            "20.1 % of the parameters (a model of 107,000,000 parameters asked for)",
        ),
        (
            {"budget": {"bytes": 214_000_000}},
            "20.1 % of the parameters (a model of 214,000,000 bytes asked for)",
        ),
        (
            {"method": {"name": "contextual", "absolute": 0.1}},
            "20.1 % of the parameters (as the method's threshold decides)",
        ),
        (
            {"sparsity": 0.2, "pattern": {"name": "units", "mode": "zero"}},
            "20.1 % of the parameters zeroed (20 % asked for)",
        ),
    ],
)
def test_amount_of_units(changes: dict[str, Any], expected: str) -> None:
    report = reports.shrunk({"method": "goa"} | changes, 27_095_040)
    assert plain(formatting.amount(report)) == expected


def shown_text(shape: str) -> str:
    return plain(text_of(found(parsed(shown(shape)), "body")[0]))


def rows_of(shape: str, caption: str) -> list[list[str]]:
    """The rows of one table, its heads included."""
    (table,) = [
        one
        for one in found(parsed(shown(shape)), "table")
        if text_of(found(one, "caption")[0]) == caption
    ]
    return [
        [plain(text_of(cell)) for cell in row if str(cell.tag).endswith(("}td", "}th"))]
        for row in found(table, "tr")
    ]


def test_page_of_removed_units_says_how_much_smaller_the_model_is() -> None:
    assert rows_of("refitted", "Size") == [
        ["Figure", "Dense", "Pruned", "Removed"],
        ["Parameters", "134,515,008", "107,419,968", "27,095,040 (20.14 %)"],
        ["Weights on disk", "257 MiB", "205 MiB", "51.7 MiB (20.14 %)"],
    ]
    kinds = rows_of("refitted", "Removed units by kind")
    assert kinds[1:] == [
        ["neurons per feed-forward", "1,536", "1,184", "352 (22.92 %)", "18,247,680"],
        ["key-value groups per block", "3", "2", "1 (33.33 %)", "8,847,360"],
    ]
    columns, groups, neurons = rows_of("refitted", "Units within blocks: range over the blocks")
    assert columns[-3:-1] == ["Relative output error", "Before what is left was fitted"]
    assert columns[-1] == "Ridge of the fit"
    assert groups[:4] == ["key-value groups", "30", "1", "3"]
    assert neurons[:4] == ["neurons", "30", "352", "1,536"]
    assert neurons[-2].startswith("0.3")
    assert neurons[-1] == "0.01 to 1"
    headings = [text_of(one) for one in found(parsed(shown("refitted")), "h2")]
    assert "Units" in headings
    assert "Matrices" not in headings
    assert [plot.title for plot in plots(SHAPES["refitted"])] == [
        "Relative output error by block", "Perplexity before and after",
    ]  # fmt: skip


def test_page_says_what_rounding_did_and_that_a_file_grew() -> None:
    rounding = {
        "dtype": "bfloat16", "weights": 1_000_000, "changed": 900_001, "underflows": 3, "relative_error": 0.0016,
        "largest_relative_error": 0.0019, "max_logit_difference": 0.0123,
    }  # fmt: skip
    gguf = {
        "file": "model-q8_0.gguf", "type": "q8_0", "bytes": 1_500_000, "underflows": 7, "relative_error": 0.0047,
        "largest_relative_error": 0.0051,
    }  # fmt: skip
    spec = {"method": "goa", "sparsity": 0.2}
    sizes = {"source_format": "gguf", "bytes_before": 98_000_000, "bytes_after": 215_000_000}
    shown = page.html(reports.report(spec, rounding=rounding, gguf=gguf, **sizes))
    for told in (
        "Rounded to bfloat16",
        "900,001",
        "0.0123",
        "dense: GGUF",
        "none: 112 MiB more",
        "model-q8_0.gguf",
        "0.0047",
    ):
        assert told in shown.replace("\u00a0", " "), told


def test_page_of_zeroed_units_takes_nothing_away() -> None:
    assert rows_of("masked residual", "Zeroed units by kind") == [
        ["Units", "Dense", "Left", "Zeroed"],
        ["residual dimensions", "576", "460", "116 (20.14 %)"],
    ]
    text = shown_text("zeroed")
    assert "Parameters that are not zero" in text
    assert "pruned matrices" not in text
    assert [plot.title for plot in plots(SHAPES["zeroed"])] == [
        "Units zeroed by block", "Relative output error by block",
    ]  # fmt: skip


def test_page_names_the_blocks_that_went() -> None:
    assert rows_of("without layers", "Whole blocks removed") == [
        ["Blocks removed, counted from 0", "4, 20 to 22, 27"]
    ]


def test_errors_against_the_dense_model_are_said_to_be() -> None:
    refit = {"name": "refit", "target": "dense"}
    spec = {"method": "goa", "sparsity": 0.2, "refinement": [refit]}
    blocks = reports.unit_blocks(2, {"neurons": (8, 64)}, refit=True)
    text = page.html(reports.shrunk(spec, 1000, blocks=blocks))
    assert "they include what earlier blocks changed" in text
    assert "they include what earlier blocks changed" not in shown("refitted")


def test_perplexities_count_the_dense_model_s_tokens_where_tokens_were_removed() -> None:
    columns, row = rows_of("without tokens", "Perplexity: lower is better")
    assert columns[3] == "Pruned over dense"
    assert {"1.234", "1.358"} <= set(row)
    assert "spread over the dense model's tokens of that text" in shown_text("without tokens")


def test_page_shows_what_fine_tuning_gained() -> None:
    facts = dict(rows_of("refitted", FINE_TUNING))  # type: ignore[arg-type]
    assert facts["Validation loss of the pruned model"] == "3.432"
    assert facts["Validation loss after fine-tuning"] == "3.012"
    assert facts["Stopped because"] == "validation no longer improved"
    assert facts["Weights kept"] == "those of step 80"
    assert facts["Distilled from the dense model"] == "no"
    titles = [text_of(one) for one in found(parsed(shown("refitted")), "h3")]
    assert "Loss while fine-tuning" in titles
    assert "No step of fine-tuning beat the pruned model" in shown_text("without tokens")
    assert "fine-tuning tokens" in shown_text("refitted")


def test_masks_too_can_be_fine_tuned() -> None:
    spec = {"method": "magnitude", "sparsity": 0.5, "recovery": {}}
    report = reports.report(spec, recovery=reports.fine_tuned())
    assert "then fine-tuned (full, 120 steps)." in page.html(report)


def test_least_page_leaves_out_what_it_has_not() -> None:
    tree = parsed(shown("least"))
    headings = [text_of(one) for one in found(tree, "h2")]
    assert "Quality before and after" not in headings
    assert "Search" not in headings
    assert "quality gate" not in text_of(tree)
    assert plots(SHAPES["least"]) == ()


def test_hostile_text_is_shown_and_does_nothing() -> None:
    text = shown("hostile")
    assert "<script" not in text
    assert "<img" not in text
    assert "\x00" not in text
    assert text_of(found(parsed(text), "body")[0]).count("<script>alert") >= 8


def test_gates_that_hold_are_said_to() -> None:
    gate = GateReport(metric="a.ppl", min=None, max=20.0, value=12.0, passed=True)
    assert "Passed: the quality gate holds." in page.html(reports.report(gates=(gate,)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"), (9.87654, "9.877"), (123456.7, "123,457"), (0.0123456, "0.01235"), (-3.5, "-3.500"),
        (1e-7, "1.000e-07"), (3e20, "3.000e+20"), (0.99999, "1.0000"),
    ],
)  # fmt: skip
def test_numbers(value: float, expected: str) -> None:
    assert formatting.number(value) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (269_030_016, "257 MiB"), (1 << 50, "1,024 TiB")],
)  # fmt: skip
def test_sizes(count: int, expected: str) -> None:
    assert formatting.size(count).replace("\N{NO-BREAK SPACE}", " ") == expected


@pytest.mark.parametrize(
    ("dense", "pruned", "p_value", "said"),
    [
        (0.6, 0.5, 0.01, "worse, beyond chance"),
        (0.5, 0.6, 0.01, "better, beyond chance"),
        (0.6, 0.5, 0.05, "within chance"),
        (0.6, 0.5, None, "too few questions to tell"),
        (None, 0.5, None, ""),
    ],
)
def test_score_is_judged_by_its_test(
    dense: float | None, pruned: float, p_value: float | None, said: str
) -> None:
    assert formatting.judged_score(reports.score(dense, pruned, p_value)) == said


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (1.01, 1.2, "worse, beyond chance"),
        (0.8, 0.99, "better, beyond chance"),
        (0.99, 1.2, "within chance"),
    ],
)
def test_ratio_is_judged_by_its_interval(low: float, high: float, said: str) -> None:
    measured = reports.perplexity("a", 10.0, 11.0)
    interval = Interval(low=low, high=high)
    assert formatting.judged_ratio(measured.model_copy(update={"ratio_interval": interval})) == said


@pytest.mark.parametrize(
    ("low", "high", "doubts", "said"),
    [
        (1.05, 1.1, (), "faster"),
        (0.9, 0.96, (), "slower"),
        (0.99, 1.2, (), "the same"),
        (1.01, 1.02, (), "the same"),
        (
            1.05,
            1.1,
            ("other programs kept 1.6 processor cores busy meanwhile",),
            "not reliably measured",
        ),
    ],
)
def test_speed_is_judged_by_its_interval(
    low: float, high: float, doubts: tuple[str, ...], said: str
) -> None:
    ratio = SpeedRatio(value=(low + high) / 2, interval=Interval(low=low, high=high))
    found = reports.speed(10.0, 10.0, ratios={"prefill": ratio, "decode": ratio}, doubts=doubts)
    assert formatting.judged_speed(found, "decode") == said
    assert f"<td>{said}</td>" in page.html(reports.refitted(speed=found))


def test_a_ratio_without_an_interval_is_not_judged() -> None:
    measured = reports.perplexity("a", 10.0, 11.0).model_copy(update={"ratio_interval": None})
    assert formatting.judged_ratio(measured) == "too few documents to tell"
    assert formatting.judged_ratio(reports.perplexity("a", None, 11.0)) == ""


@pytest.mark.parametrize(
    ("bounds", "value", "interval", "said"),
    [
        ({"max": 1.5}, 1.36, (1.3, 1.4), "passed"),
        ({"max": 1.5}, 1.36, (1.2, 1.52), "passed, within chance"),
        ({"min": 0.5}, 0.47, (0.44, 0.51), "missed, within chance"),
        ({"min": 0.5, "max": 0.9}, 0.47, (0.4, 0.49), "missed"),
        ({"max": 0.05}, 0.04, None, "passed"),
    ],
)
def test_a_gate_whose_bound_lies_in_the_interval_says_so(
    bounds: dict[str, float], value: float, interval: tuple[float, float] | None, said: str
) -> None:
    found = None if interval is None else Interval(low=interval[0], high=interval[1])
    gate = GateReport(
        metric="a.ppl",
        min=bounds.get("min"),
        max=bounds.get("max"),
        value=value,
        passed=said.startswith("passed"),
        interval=found,
    )
    assert formatting.judged_gate(gate) == said
    assert f"<td>{said}</td>" in page.html(reports.report(gates=(gate,)))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.3.self_attn.q_proj.weight", "q_proj"),
        ("transformer.h.0.attn.c_attn.weight[q]", "c_attn[q]"),
        ("model.layers.0.self_attn.qkv_proj[k].weight", "qkv_proj[k]"),
        ("model.layers.1.block_sparse_moe.experts.7.w1.weight", "w1"),
    ],
)
def test_kind_of_a_matrix(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_importing_the_reporting_imports_no_torch() -> None:
    code = (
        "import sys, pruning_core.reporting.page, pruning_core.reporting.card; "
        "heavy = {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    source, checkpoint = tmp_path / "source", tmp_path / "checkpoint"
    source.mkdir()
    checkpoint.mkdir()
    return source, checkpoint


def written(report: Report, folders: tuple[Path, Path], base_model: str | None = None) -> ModelCard:
    source, checkpoint = folders
    card.write(report, base_model=base_model, source=source, checkpoint=checkpoint)
    return ModelCard((checkpoint / "README.md").read_text(encoding="utf-8"))


def test_every_report_makes_a_card_that_the_hub_can_read(
    report: Report, folders: tuple[Path, Path]
) -> None:
    made = written(report, folders)
    assert made.data.library_name == "transformers"
    assert made.data.pipeline_tag == "text-generation"
    assert report.spec.method.name in made.data.tags
    assert "None" not in made.text
    assert "<script" not in made.text
    assert "base_model" not in made.data.to_dict()
    assert "Look it up" in made.text
    assert ("sparse" in made.data.tags) == (report.spec.units is None)
    results = made.data.eval_results or []
    assert len(results) == len(report.perplexity) + 2 * len(report.accuracy)


def test_card_carries_model_licence_and_figures(folders: tuple[Path, Path]) -> None:
    (folders[0] / "README.md").write_text("---\nlicense: apache-2.0\ntags: [a]\n---\n# A model\n")
    made = written(SHAPES["full"], folders, "org/model")
    assert made.data.base_model == "org/model"
    assert made.data.license == "apache-2.0"
    assert made.data.model_name == "model-crepe-sparsity-50"
    assert made.data.eval_results is not None
    first = made.data.eval_results[0]
    assert (first.metric_type, first.metric_value) == ("perplexity", 13.4321)
    text = made.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "| python\\_docs | perplexity | 9.877 (9.481 to 10.27) |" in text
    assert "AutoModelForCausalLM.from_pretrained" in text
    assert "run as fast as before" in text
    for line in text.splitlines():
        assert not line.startswith("| ") or line.count(" |") in (2, 5)


def test_card_of_a_smaller_model_says_so(folders: tuple[Path, Path]) -> None:
    made = written(SHAPES["refitted"], folders, "org/model")
    assert made.data.model_name == "model-goa-20.1pct"
    assert made.data.tags == ["pruned", "structured-pruning", "goa"]
    text = plain(made.text)
    assert "| amount | 20.1 % of the parameters (20 % asked for) |" in text
    assert "| parameters | 134,515,008 before, 107,419,968 after |" in text
    assert "| fine-tuning | full, 120 steps, 491,520 tokens; loss from 3.432 to 3.012 on" in text
    assert "the tensors are smaller" in text
    assert "as large as before" not in text
    assert "zeros" not in text
    assert "token\\_map" not in text


def test_card_of_other_tokens_warns_of_mixing_them(folders: tuple[Path, Path]) -> None:
    made = written(SHAPES["without tokens"], folders)
    text = plain(made.text)
    assert "never mix its ids with the base model's: `token_map.json`" in text
    assert "| python\\_docs | bits per byte | 1.234 | 1.358 |  |" in text
    assert "count the base model's tokens of the same text for both" in text
    assert "without gain, so undone" in text


def test_card_says_what_a_model_was_distilled_from(folders: tuple[Path, Path]) -> None:
    trained = reports.fine_tuned(best_step=0, distilled=True)
    text = plain(written(reports.refitted(recovery=trained), folders).text)
    assert "distilled from the dense model; without gain, so undone" in text


def test_card_of_zeroed_units_promises_no_smaller_files(folders: tuple[Path, Path]) -> None:
    made = written(SHAPES["masked residual"], folders)
    assert made.data.tags == ["pruned", "diet"]
    assert "as large as before" in made.text
    assert "zeros among all parameters" in made.text
    assert "pruned matrices" not in made.text


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ("license: mit", "mit"),
        ("license: 'MIT' # theirs", "mit"),
        ("license:\n- apache-2.0\n- mit", "apache-2.0"),
        ("license: [llama3.2]", "llama3.2"),
        ("license: other\nlicense_name: my-own\nlicense_link: LICENSE", "other"),
        ("language: en", None),
        ("license: <script>", None),
    ],
)
def test_licence_of_the_card(tmp_path: Path, front: str, expected: str | None) -> None:
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\nlicense: gpl-3.0\n")
    found = licence.of_folder(tmp_path)
    assert (found and found.identifier) == expected
    if expected == "other":
        assert found == licence.Licence("other", "my-own", "LICENSE")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("                Apache License\n           Version 2.0, January 2004", "apache-2.0"),
        ("MIT License\n\nCopyright (c) 2023", "mit"),
        ("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT", "llama3.2"),
        ("Gemma Terms of Use", "gemma"),
        ("All rights reserved.", None),
    ],
)
def test_licence_of_the_file(tmp_path: Path, text: str, expected: str | None) -> None:
    (tmp_path / "LICENSE").write_text(text)
    found = licence.of_folder(tmp_path)
    assert (found and found.identifier) == expected


def test_odd_cards_are_no_licence(tmp_path: Path) -> None:
    for content in (b"", b"\xff\xfe\x00", b"---\nlicense: mit", b"# only text", b"---\n: [\n---\n"):
        (tmp_path / "README.md").write_bytes(content)
        assert licence.of_folder(tmp_path) is None


def test_page_holds_the_specification_as_json() -> None:
    report = SHAPES["full"]
    tree = parsed(shown("full"))
    (spec,) = [text_of(one) for one in found(tree, "pre")]
    assert json.loads(spec) == report.spec.model_dump(mode="json")
