"""A reduced vocabulary: what was seen reads the same, and everything else still decodes to what it did."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pruning_core.errors import ModelInvalid
from pruning_core.tokenizers.kept import kept_ids, protected_ids
from pruning_core.tokenizers.renumber import renumbered
from pruning_core.tokenizers.shrink import shrink
from tests.examples import examples

ROOT = Path(__file__).resolve().parents[2]
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PADDING_ROWS = 13
TRAINED_ON = [
    "The gardener cuts the old wood of the roses in spring, before the first leaves unfold.",
    "Cutting, pruned, pruning: the gardeners pruned what had been pruned and unpruned before.",
    "Élagage des rosiers, αβγ δέντρα, 12 345 roses — “cut” it's 'em don't I'm ... ñandú ñandú",
    "the theater there then these those whether gather together forgather lather leather",
] * 4
SEEN = "The gardeners cut the roses together, whether pruned or not: it's spring."


@dataclass(frozen=True)
class Reduced:
    """A tokenizer, the same one reduced, and the ids that stayed."""

    folder: Path
    target: Path
    kept: tuple[int, ...]
    old: Any
    new: Any

    def mapped(self, ids: list[int]) -> list[int]:
        return [self.kept.index(place) for place in ids]


def reduced(folder: Path, target: Path, wanted: list[int] | str) -> Reduced:
    old = AutoTokenizer.from_pretrained(folder)
    ids = old(wanted)["input_ids"] if isinstance(wanted, str) else wanted
    kept = kept_ids(folder, ids)
    target.mkdir(exist_ok=True)
    shrink(folder, target, kept)
    return Reduced(folder, target, kept, old, AutoTokenizer.from_pretrained(target))


def save(folder: Path, content: dict[str, Any] | str, tokenizer_class: str | None = None) -> Path:
    """Save a tokenizer as transformers does, and a configuration whose embedding has padding rows."""
    text = content if isinstance(content, str) else json.dumps(content)
    inner = Tokenizer.from_str(text)
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    wrapped.save_pretrained(folder)
    if tokenizer_class:
        edit(folder / "tokenizer_config.json", tokenizer_class=tokenizer_class)
    config = {"model_type": "llama", "vocab_size": len(wrapped) + PADDING_ROWS}
    ids = {"bos_token_id": wrapped.bos_token_id, "eos_token_id": [wrapped.eos_token_id]}
    (folder / "config.json").write_text(json.dumps(config | ids))
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(read(path) | changes))


def byte_level(**model: Any) -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TRAINED_ON,
        trainers.BpeTrainer(
            vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    content["model"] |= model
    return content


def with_every_split(content: dict[str, Any]) -> dict[str, Any]:
    """Give every token all merges that build it, as conversions from tiktoken and SentencePiece do."""
    model = content["model"]
    vocab = model["vocab"]
    found = [
        (vocab[token], vocab[token[:place]], vocab[token[place:]], token[:place], token[place:])
        for token in vocab
        for place in range(1, len(token))
        if token[:place] in vocab and token[place:] in vocab
    ]
    model["merges"] = [[first, second] for *_, first, second in sorted(found)]
    return content


def sentencepiece_bpe() -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=SPECIAL + BYTES, show_progress=False, max_token_length=8
    )
    tokenizer.train_from_iterator(TRAINED_ON, trainer)
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][: len(SPECIAL)]
    return with_every_split(content)


def unigram() -> dict[str, Any]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        TRAINED_ON,
        trainers.UnigramTrainer(
            vocab_size=160, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        ),
    )
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


def unigram_with_bytes() -> dict[str, Any]:
    content = unigram()
    model = content["model"]
    start = len(SPECIAL)
    # The score keeps text that spells out a byte piece from becoming that piece
    model["vocab"][start:start] = [[piece, -90.0] for piece in BYTES]
    model["byte_fallback"] = True
    space = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    parts = [space, {"type": "ByteFallback"}, {"type": "Fuse"}]
    content["decoder"] = {"type": "Sequence", "decoders": parts}
    return content


def wordpiece() -> dict[str, Any]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        TRAINED_ON,
        trainers.WordPieceTrainer(
            vocab_size=220,
            special_tokens=[*SPECIAL, "[CLS]", "[SEP]", "[MASK]"],
            show_progress=False,
        ),
    )
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


def wordlevel() -> dict[str, Any]:
    words = sorted({word for line in TRAINED_ON for word in line.split()})
    vocab = {word: place for place, word in enumerate(SPECIAL + words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(SPECIAL)
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


def untyped() -> dict[str, Any]:
    """The form of GPT-2's own file: no model type, merges as strings."""
    content = byte_level()
    del content["model"]["type"]
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    return content


KINDS: dict[str, tuple[Callable[[], dict[str, Any]], str | None]] = {
    "byte-level": (byte_level, None),
    "byte-level, every split": (lambda: with_every_split(byte_level(ignore_merges=True)), None),
    "byte-level, GPT2Tokenizer": (byte_level, "GPT2Tokenizer"),
    "sentencepiece": (sentencepiece_bpe, None),
    "sentencepiece, LlamaTokenizer": (sentencepiece_bpe, "LlamaTokenizer"),
    "unigram": (unigram, None),
    "unigram, bytes": (unigram_with_bytes, None),
    "wordpiece": (wordpiece, None),
    "wordpiece, BertTokenizer": (wordpiece, "BertTokenizer"),
    "wordlevel": (wordlevel, None),
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("tokenizers")

    @functools.cache
    def made(kind: str) -> Path:
        make, tokenizer_class = KINDS[kind]
        return save(root / kind, make(), tokenizer_class)

    return made


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, folder_of: Callable[[str], Path]) -> Path:
    return folder_of(request.param)


@pytest.fixture
def plain(folder_of: Callable[[str], Path], tmp_path: Path) -> Path:
    """A byte-level tokenizer of this test's own, to change."""
    return Path(shutil.copytree(folder_of("byte-level"), tmp_path / "plain"))


def texts() -> st.SearchStrategy[str]:
    """Arbitrary Unicode, with words that the tokenizers know in between."""
    words = st.sampled_from([*" ".join(TRAINED_ON).split(), "</s>", "<0x41>", "  ", "\n"])
    return st.lists(st.one_of(words, st.text(max_size=8))).map(" ".join)


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts())
@settings(max_examples=examples(20), deadline=None)
def test_a_text_of_wanted_tokens_reads_as_the_same_tokens(
    kind: str, folder_of: Callable[[str], Path], text: str
) -> None:
    with tempfile.TemporaryDirectory() as target:
        found = reduced(folder_of(kind), Path(target), text)
    assert found.new(text)["input_ids"] == found.mapped(found.old(text)["input_ids"])


@pytest.fixture(scope="module")
def reduced_of(
    folder_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Reduced]:
    root = tmp_path_factory.mktemp("reduced")
    return functools.cache(lambda kind: reduced(folder_of(kind), root / kind, SEEN))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wordlevel"])
@given(text=texts())
@settings(max_examples=examples(50), deadline=None)
def test_any_text_decodes_to_what_it_did(
    kind: str, reduced_of: Callable[[str], Reduced], text: str
) -> None:
    found = reduced_of(kind)
    assert len(found.kept) < len(found.old)
    assert found.new.decode(found.new(text)["input_ids"]) == found.old.decode(
        found.old(text)["input_ids"]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_and_size_are_valid(kind: str, reduced_of: Callable[[str], Reduced]) -> None:
    found = reduced_of(kind)
    assert len(found.new) == len(found.kept) < len(found.old)
    for name in ("bos", "eos", "pad", "unk"):
        old, new = (getattr(side, f"{name}_token_id") for side in (found.old, found.new))
        assert found.kept[new] == old
    assert read(found.target / "token_map.json") == list(found.kept)
    assert found.new.all_special_tokens == found.old.all_special_tokens


def test_keeping_everything_changes_nothing(folder: Path, tmp_path: Path) -> None:
    size = len(AutoTokenizer.from_pretrained(folder))
    found = reduced(folder, tmp_path / "target", list(range(size)))
    assert found.kept == tuple(range(size))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert read(found.target / name) == read(folder / name)
    config = read(folder / "config.json")
    assert renumbered(config, found.kept) == config | {"vocab_size": size}


def test_rows_beyond_the_tokenizer_never_stay(folder: Path) -> None:
    rows = read(folder / "config.json")["vocab_size"]
    assert kept_ids(folder, range(rows)) == tuple(range(rows - PADDING_ROWS))


def test_what_is_always_kept_is_closed_and_part_of_every_selection(folder: Path) -> None:
    protected = protected_ids(folder)
    assert kept_ids(folder, protected) == protected
    assert set(protected) < set(kept_ids(folder, range(10_000)))


def test_characters_that_fall_back_to_bytes_need_not_stay(folder_of: Callable[[str], Path]) -> None:
    for kind in ("sentencepiece", "unigram, bytes"):
        folder = folder_of(kind)
        tokens = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(protected_ids(folder))
        assert {"▁", *BYTES} <= set(tokens)
        assert not {"ñ", "“"} & set(tokens)


def write_bare(folder: Path, model: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    steps = [{"type": "ByteFallback"}, {"type": "Fuse"}]
    decoder = {"type": "Sequence", "decoders": steps} if model.get("byte_fallback") else None
    content = {"model": model, "added_tokens": [], "decoder": decoder}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def reads_the_same(model: dict[str, Any], text: str) -> bool:
    """Reduce a bare model to the tokens of a text and compare how both read it."""
    with tempfile.TemporaryDirectory() as name:
        folder, target = Path(name) / "old", Path(name) / "new"
        write_bare(folder, model)
        target.mkdir()
        ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
        kept = kept_ids(folder, ids)
        shrink(folder, target, kept)
        new = Tokenizer.from_file(str(target / "tokenizer.json")).encode(text).ids
    return [kept[place] for place in new] == ids


@st.composite
def random_bpe(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """Return a BPE model in which several merges build one token and ranks follow no order, and a text."""
    prefix, suffix = draw(st.sampled_from([("", ""), ("", ""), ("##", ""), ("", "</w>")]))
    longer = draw(st.lists(st.text("ab", min_size=2, max_size=7), max_size=20))
    tokens = {
        before + text + after
        for text in ["a", "b", *longer]
        for before in ("", prefix)
        for after in ("", suffix)
    }
    merges = [
        [left, right]
        for left in sorted(tokens)
        for right in sorted(tokens)
        if right.startswith(prefix)
        and not (suffix and left.endswith(suffix))
        and left + right[len(prefix) :] in tokens
    ]
    model = {
        "type": "BPE",
        "vocab": {token: place for place, token in enumerate(sorted(tokens))},
        "merges": draw(st.permutations(merges)),
        "continuing_subword_prefix": prefix,
        "end_of_word_suffix": suffix,
        "ignore_merges": draw(st.booleans()),
    }
    return model, draw(st.one_of(st.sampled_from([*longer, "a"]), st.text("ab", max_size=12)))


def bpe(merges: list[str]) -> dict[str, Any]:
    pairs = [merge.split() for merge in merges]
    tokens = sorted({"a", "b"}.union(*({*pair, "".join(pair)} for pair in pairs)))
    vocab = {token: place for place, token in enumerate(tokens)}
    return {"type": "BPE", "vocab": vocab, "merges": pairs}


@given(drawn=random_bpe())
# Each fails with another closure: first merge that builds a token, last one, rightmost of equal ranks
@example(drawn=(bpe(["b a", "a b", "b ab", "ba b"]), "aabab"))
@example(drawn=(bpe(["a b", "a aab", "aaa b", "a ab"]), "aaab"))
@example(drawn=(bpe(["bb b", "bb a", "b bba", "bbb a", "b b", "b bb"]), "bbbaabaa"))
@settings(max_examples=examples(200), deadline=None)
def test_the_closure_holds_the_merges_that_the_encoder_takes(
    drawn: tuple[dict[str, Any], str],
) -> None:
    assert reads_the_same(*drawn)


def test_a_token_merged_out_of_bytes_stays_reachable() -> None:
    first, second, third = "<0xE2>", "<0x82>", "<0xAC>"
    euro = first + second + third
    merges = [[second, third], [first + second, third], [first, second + third], [first, second]]
    tokens = ["<unk>", *BYTES, first + second, second + third, euro]
    vocab = {token: place for place, token in enumerate(tokens)}
    model = {"type": "BPE", "vocab": vocab, "merges": merges, "byte_fallback": True}
    assert reads_the_same(model, "€")


@pytest.mark.parametrize(
    ("in_file", "tokenizer_class"), [(False, "LlamaTokenizer"), (True, "GPT2Tokenizer")]
)
def test_bytes_count_only_where_file_and_class_agree(
    tmp_path: Path, *, in_file: bool, tokenizer_class: str
) -> None:
    content = sentencepiece_bpe()
    content["model"]["byte_fallback"] = in_file
    folder = save(tmp_path / "old", content, tokenizer_class)
    vocab = content["model"]["vocab"]
    assert {vocab["ñ"], vocab["“"]} <= set(protected_ids(folder))


@st.composite
def random_pieces(draw: st.DrawFn) -> tuple[list[list[Any]], str]:
    """Return Unigram pieces with characters missing and scores of any size, and a text."""
    pieces = draw(st.lists(st.text("abc", min_size=1, max_size=4), unique=True, max_size=20))
    scores = st.sampled_from([-1.0, -2.0, -5.0, -30.0, -60.0])
    return [[piece, draw(scores)] for piece in pieces], draw(st.text("abcd", max_size=12))


RARE_B = [["a", -1.0], ["b", -60.0], ["c", -30.0], ["ab", -30.0], ["ca", -1.0]]


@pytest.mark.parametrize(
    "filler", [[], [[piece, -30.0] for piece in BYTES]], ids=["plain", "bytes"]
)
@given(drawn=random_pieces())
@example(drawn=(RARE_B, "cabca"))
@settings(max_examples=examples(100), deadline=None)
def test_unknown_characters_keep_their_cost(
    filler: list[list[Any]], drawn: tuple[list[list[Any]], str]
) -> None:
    pieces, text = drawn
    vocab = [["<unk>", 0.0], *filler, *pieces]
    model = {"type": "Unigram", "vocab": vocab, "unk_id": 0, "byte_fallback": bool(filler)}
    assert reads_the_same(model, text)


@pytest.mark.parametrize(
    ("model", "protected", "free"),
    [
        (
            {"type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": 9},
            ["<unk>", "a", "b", "##a", "qu", "##z"],
            ["##aa", "ba"],
        ),
        (
            {"type": "BPE", "end_of_word_suffix": "</w>", "merges": [["b", "a</w>"]]},
            ["<unk>", "b", "a</w>", "ca"],
            ["ba</w>"],
        ),
        ({"type": "WordLevel"}, ["<unk>"], ["a", "word"]),
    ],
    ids=lambda part: part["type"] if isinstance(part, dict) else "",
)
def test_single_characters_and_what_they_cannot_spell_stay(
    tmp_path: Path, model: dict[str, Any], protected: list[str], free: list[str]
) -> None:
    vocab = {token: place for place, token in enumerate([*protected, *free])}
    write_bare(tmp_path, model | {"vocab": vocab, "unk_token": "<unk>"})
    assert protected_ids(tmp_path) == tuple(range(len(protected)))


@pytest.fixture(scope="module")
def real_text() -> str:
    return "\n".join(
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CHANGELOG.md")
    )


@pytest.fixture(scope="module", params=["as it is", "every split"])
def real(
    request: pytest.FixtureRequest,
    smollm2: Path,
    real_text: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Reduced:
    """SmolLM2's tokenizer reduced to a text; also in the form that Llama 3's has."""
    root = tmp_path_factory.mktemp("real")
    (root / "old").mkdir()
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "config.json",
        "generation_config.json",
    ):
        shutil.copyfile(smollm2 / name, root / "old" / name)
    if request.param == "every split":
        content = with_every_split(read(root / "old" / "tokenizer.json"))
        content["model"]["ignore_merges"] = True
        (root / "old" / "tokenizer.json").write_text(json.dumps(content))
    return reduced(root / "old", root / "new", real_text)


def test_a_real_text_reads_as_the_same_tokens(real: Reduced, real_text: str) -> None:
    old = real.old(real_text)["input_ids"]
    place = {kept: new for new, kept in enumerate(real.kept)}
    assert real.new(real_text)["input_ids"] == [place[token] for token in old]
    assert len(real.new) == len(real.kept) < len(real.old) / 4
    assert real.kept[real.new.eos_token_id] == real.old.eos_token_id


@given(text=texts())
@settings(max_examples=examples(50), deadline=None)
def test_any_text_decodes_to_what_it_did_with_a_real_tokenizer(real: Reduced, text: str) -> None:
    old, new = (side.decode(side(text)["input_ids"]) for side in (real.old, real.new))
    assert new == old


def test_a_real_tokenizer_without_closure_is_refused(real: Reduced, tmp_path: Path) -> None:
    seen = sorted({*real.old(SEEN)["input_ids"], *protected_ids(real.folder)})
    with pytest.raises(ValueError, match="kept_ids"):
        shrink(real.folder, tmp_path, seen)


@pytest.mark.parametrize("kept", [[1, 0], [0, 0], [0, 1_000_000]])
def test_ids_that_kept_ids_did_not_return_are_refused(
    plain: Path, tmp_path: Path, kept: list[int]
) -> None:
    with pytest.raises(ValueError, match="kept_ids"):
        shrink(plain, tmp_path, [*protected_ids(plain), *kept])


def test_files_beside_tokenizer_json_agree_with_it(plain: Path, tmp_path: Path) -> None:
    content = untyped()
    save(plain, content)
    (plain / "tokenizer.json").write_text(json.dumps(content))
    (plain / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    merges = ["#version: 0.2", *content["model"]["merges"]]
    (plain / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    (plain / "tokenizer.model").write_bytes(b"SentencePiece")
    (plain / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    found = reduced(plain, tmp_path / "target", SEEN)
    model = read(found.target / "tokenizer.json")["model"]
    assert read(found.target / "vocab.json") == model["vocab"]
    lines = (found.target / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert lines == ["#version: 0.2", *model["merges"]]
    assert 0 < len(model["merges"]) < len(content["model"]["merges"])
    assert read(found.target / "special_tokens_map.json") == {"eos_token": "</s>"}
    assert {path.name for path in found.target.iterdir()} == {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt",
        "token_map.json",
    }  # fmt: skip
    old_files = models.BPE.from_file(
        *(str(found.target / name) for name in ("vocab.json", "merges.txt"))
    )
    assert old_files.token_to_id("</s>") == found.new.eos_token_id


def test_wordpiece_lists_follow_the_new_order(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folder_of("wordpiece"), tmp_path / "wordpiece"))
    vocab = read(folder / "tokenizer.json")["model"]["vocab"]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocab), encoding="utf-8")
    found = reduced(folder, tmp_path / "target", SEEN)
    lines = (found.target / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert lines == found.new.convert_ids_to_tokens(range(len(found.new)))


def test_added_tokens_move_with_their_names(plain: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(plain)
    tokenizer.add_tokens(["<|tool|>", "espalier"])
    tokenizer.save_pretrained(plain)
    ids = tokenizer.convert_tokens_to_ids(["<|tool|>", "espalier"])
    (plain / "added_tokens.json").write_text(json.dumps({"<|tool|>": ids[0], "espalier": ids[1]}))
    entry = {"content": "espalier", "special": False}
    edit(plain / "tokenizer_config.json", added_tokens_decoder={str(ids[1]): entry})
    found = reduced(plain, tmp_path / "target", SEEN)
    new = found.mapped(ids)
    assert found.new.convert_tokens_to_ids(["<|tool|>", "espalier"]) == new
    assert read(found.target / "added_tokens.json") == {"<|tool|>": new[0], "espalier": new[1]}
    decoder = read(found.target / "tokenizer_config.json")["added_tokens_decoder"]
    assert decoder == {str(new[1]): entry}
    text = "an espalier<|tool|>"
    assert found.new(text)["input_ids"][-1] == new[0]
    assert new[1] in found.new(text)["input_ids"]


def test_a_special_token_that_only_the_configuration_names_stays(
    plain: Path, tmp_path: Path
) -> None:
    edit(plain / "tokenizer_config.json", pad_token="[PAD]")
    found = reduced(plain, tmp_path / "target", SEEN)
    assert found.kept[found.new.pad_token_id] == found.old.pad_token_id == len(found.old) - 1
    assert len(found.new) == len(found.kept)


def test_a_token_that_the_embedding_has_no_row_for_does_not_stay(
    plain: Path, tmp_path: Path
) -> None:
    size = len(AutoTokenizer.from_pretrained(plain))
    edit(plain / "config.json", vocab_size=size)
    edit(plain / "tokenizer_config.json", pad_token="[PAD]")
    found = reduced(plain, tmp_path / "target", SEEN)
    assert found.old.pad_token_id == size
    assert size not in found.kept
    assert found.new.pad_token_id == len(found.kept)


def template(kind: str, first: tuple[str, int], last: tuple[str, int]) -> Any:
    if kind == "Bert":
        return processors.BertProcessing(last, first)
    if kind == "Roberta":
        return processors.RobertaProcessing(last, first)
    frame = processors.TemplateProcessing(
        single=f"{first[0]} $A {last[0]}", special_tokens=[first, last]
    )
    return frame if kind == "Template" else processors.Sequence([processors.ByteLevel(), frame])


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "Template", "Sequence"])
def test_templates_and_padding_name_the_new_ids(plain: Path, tmp_path: Path, kind: str) -> None:
    inner = Tokenizer.from_str(json.dumps(byte_level()))
    first, last, padding = ((inner.id_to_token(place), place) for place in (400, 401, 402))
    inner.post_processor = template(kind, first, last)
    inner.enable_padding(pad_token=padding[0], pad_id=padding[1])
    inner.save(str(plain / "tokenizer.json"))
    found = reduced(plain, tmp_path / "target", SEEN)
    ids = found.new(SEEN)["input_ids"]
    assert (found.kept[ids[0]], found.kept[ids[-1]]) == (400, 401)
    assert found.kept[read(found.target / "tokenizer.json")["padding"]["pad_id"]] == 402


def test_configuration_fields_are_renumbered() -> None:
    config = {
        "vocab_size": 99, "bos_token_id": 4, "eos_token_id": [6, 8, 50], "pad_token_id": -1, "unk_token_id": None,
        "decoder_start_token_id": 8, "suppress_tokens": [4, 5], "begin_suppress_tokens": None,
        "bad_words_ids": [[4, 6], [4, 5]], "hidden_size": 4, "forced_eos_token_id": [8], "sequence_bias": None,
    }  # fmt: skip
    before = json.dumps(config)
    assert renumbered(config, [4, 6, 8]) == {
        "vocab_size": 3, "bos_token_id": 0, "eos_token_id": [1, 2], "pad_token_id": -1, "unk_token_id": None,
        "decoder_start_token_id": 2, "suppress_tokens": [0], "begin_suppress_tokens": None,
        "bad_words_ids": [[0, 1]], "hidden_size": 4, "forced_eos_token_id": [2], "sequence_bias": None,
    }  # fmt: skip
    assert json.dumps(config) == before
    assert "vocab_size" not in renumbered({"eos_token_id": 4}, [4])


@pytest.mark.parametrize(
    ("field", "value"),
    [("eos_token_id", 5), ("eos_token_id", [5, 7]), ("sequence_bias", [[[4], 1.0]])],
)
def test_fields_that_lose_their_token_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ModelInvalid, match=field):
        renumbered({field: value}, [4, 6])


def test_tokens_that_the_configuration_names_stay(plain: Path) -> None:
    (plain / "generation_config.json").write_text('{"eos_token_id": [2, 400], "pad_token_id": 401}')
    assert {400, 401} <= set(protected_ids(plain))


def test_a_folder_without_tokenizer_json_is_refused(plain: Path) -> None:
    (plain / "tokenizer.json").unlink()
    with pytest.raises(ModelInvalid, match="save_pretrained"):
        kept_ids(plain, [1])


def test_an_unknown_model_type_is_refused(plain: Path) -> None:
    content = read(plain / "tokenizer.json")
    content["model"]["type"] = "Lattice"
    (plain / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelInvalid, match="Lattice"):
        kept_ids(plain, [1])


def test_a_file_that_is_not_json_is_refused(plain: Path) -> None:
    (plain / "tokenizer.json").write_text("{")
    with pytest.raises(ModelInvalid, match="not JSON"):
        kept_ids(plain, [1])
