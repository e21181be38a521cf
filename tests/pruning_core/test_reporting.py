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

from pruning_core.reporting import card, licence, page, words
from pruning_core.reporting.plots import kind_of, plots
from pruning_core.spec.report import GateReport, Interval, Report, SpeedReport, Throughput
from tests.pruning_core import reports
from tests.pruning_core.reports import HOSTILE

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


def test_least_page_leaves_out_what_it_has_not() -> None:
    tree = parsed(shown("least"))
    headings = [text_of(one) for one in found(tree, "h2")]
    assert "Quality before and after" not in headings
    assert "Search" not in headings
    assert "quality gate" not in text_of(tree)
    assert [plot.title for plot in plots(SHAPES["least"])] == ["Sparsity by block"]


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
    assert words.number(value) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (269_030_016, "257 MiB"), (1 << 50, "1,024 TiB")],
)  # fmt: skip
def test_sizes(count: int, expected: str) -> None:
    assert words.size(count).replace("\N{NO-BREAK SPACE}", " ") == expected


@pytest.mark.parametrize(
    ("dense", "pruned", "p_value", "said"),
    [
        (0.6, 0.5, 0.01, "worse, beyond chance"),
        (0.5, 0.6, 0.01, "better, beyond chance"),
        (0.6, 0.5, 0.05, "within chance"),
        (None, 0.5, None, ""),
    ],
)
def test_score_is_judged_by_its_test(
    dense: float | None, pruned: float, p_value: float | None, said: str
) -> None:
    assert words.judged_score(reports.score(dense, pruned, p_value)) == said


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
    assert words.judged_ratio(measured.model_copy(update={"ratio_interval": interval})) == said


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
