"""A byte-level BPE tokenizer in GGUF's words; others are refused, because GGUF would split text otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType
from transformers import AutoTokenizer

from pruning_core.gguf.writable import refuse

TOKENIZER = "tokenizer.json"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_SPLITS = {_LLAMA3: "llama-bpe", _QWEN2: "qwen2"}
"""llama.cpp's names of the expressions that split text before merges."""
_IDS = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unk_token_id", "pad": "pad_token_id"}


def check_vocabulary(folder: Path, pre: str | None) -> None:
    """Refuse a tokenizer that GGUF cannot say, before any work is done.

    Raises:
        UnsupportedModel: it is no byte-level BPE, or splits text in a way that llama.cpp has no name for.
    """
    _read(folder, pre)


def add_vocabulary(
    writer: GGUFWriter, folder: Path, config: dict[str, Any], pre: str | None
) -> None:
    """Write the tokenizer and the chat template of a checkpoint.

    Args:
        writer: Of the file.
        folder: The checkpoint.
        config: Its `config.json`.
        pre: How llama.cpp calls its split of text, where a GGUF source said so.
    """
    content, name = _read(folder, pre)
    model = content["model"]
    tokens = {place: token for token, place in model["vocab"].items()}
    kinds = dict.fromkeys(tokens, TokenType.NORMAL)
    for added in content.get("added_tokens", ()):
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    rows = range(int(config["vocab_size"]))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list([tokens.get(place, f"[PAD{place}]") for place in rows])
    writer.add_token_types([kinds.get(place, TokenType.UNUSED) for place in rows])
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    writer.add_token_merges(list(merges))
    _add_special(writer, folder, config)


def _add_special(writer: GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for short, key in _IDS.items():
        place = getattr(tokenizer, key, None)
        if place is None:
            place = config.get(key)
        place = place[0] if isinstance(place, list) else place
        if place is not None:
            getattr(writer, f"add_{short}_token_id")(int(place))
    begins = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    writer.add_add_bos_token(begins)
    writer.add_add_space_prefix(False)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _read(folder: Path, pre: str | None) -> tuple[dict[str, Any], str]:
    if not (folder / TOKENIZER).is_file():
        raise refuse(f"it has no {TOKENIZER}")
    content: dict[str, Any] = json.loads((folder / TOKENIZER).read_bytes())
    model = content["model"]
    levels = [step["type"] for step in _steps(content.get("pre_tokenizer"))]
    if not model.get("merges"):
        raise refuse("its tokenizer merges nothing, and llama.cpp wants merges")
    if model["type"] != "BPE" or "ByteLevel" not in levels or model.get("byte_fallback"):
        raise refuse("its tokenizer is no byte-level BPE")
    name = pre or _name(content)
    if name is None:
        raise refuse("llama.cpp has no name for the way in which its tokenizer splits text")
    return content, name


def _steps(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    if step is None:
        return []
    return step["pretokenizers"] if step["type"] == "Sequence" else [step]


def _name(content: dict[str, Any]) -> str | None:
    """Return llama.cpp's name of a split of text, None where it has none that is known here."""
    first, *others = _steps(content.get("pre_tokenizer"))
    normal = (content.get("normalizer") or {}).get("type")
    if first["type"] == "Split":
        name = _SPLITS.get(first["pattern"].get("Regex", ""))
        allowed = (None, "NFC") if name == "qwen2" else (None,)
        return name if normal in allowed else None
    last = others[-1] if others else first
    if normal or not last.get("use_regex", True) or last.get("add_prefix_space"):
        return None
    if first["type"] == "Digits" and first["individual_digits"] and len(others) == 1:
        return "smollm"
    return None if others else "gpt-2"
