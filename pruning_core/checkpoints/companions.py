"""The files beside the weights: what stock libraries read of a model's folder, and what its licence asks to keep."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from pruning_core.checkpoints.private_view import CHAT_TEMPLATES, MODULES, modules
from pruning_core.checkpoints.weight_files import PICKLES

VOCABULARIES = (
    "tokenizer.json", "tokenizer.model", "tekken.json", "tiktoken.model", "tokenizer.tiktoken",
    "vocab.json", "vocab.txt", "merges.txt", "bpe.codes", "byte_maps.json", "dict.txt", "emoji.json", "entity_vocab.json",
    "normalizer.json", "prophetnet.tokenizer", "sentencepiece.bpe.model", "sentencepiece.model", "source.spm", "spiece.model",
    "spm.model", "spm_char.model", "target.spm", "target_vocab.json", "vocab-src.json", "vocab-tgt.json",
    "word_pronunciation.json", "word_shape.json",
)  # fmt: skip
"""All that the tokenizers of stock transformers declare in `vocab_files_names`, and the formats that it converts."""
_SETTINGS = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "token_map.json", "generation_config.json",
    "chat_template.jinja", "chat_template.json", f"{CHAT_TEMPLATES}/*.jinja", "processor_config.json", "preprocessor_config.json",
    "video_preprocessor_config.json", "audio_tokenizer_config.json",
)  # fmt: skip
_EMBEDDER = (
    MODULES, "config_sentence_transformers.json", "sentence_*_config.json", "[0-9]*_*/*.json", "[0-9]*_*/*.safetensors",
)  # fmt: skip
"""What makes a language model a sentence embedder; its parts are as wide as the residual stream."""
_TERMS = tuple(
    f"{start}{word[0]}{word[1:].lower() if lower else word[1:]}*"
    for start in ("", "*_")
    for word in ("LICENSE", "LICENCE", "NOTICE", "COPYING", "COPYRIGHT", "USE_POLICY")
    for lower in (False, True)
)
PATTERNS = (*VOCABULARIES, *_SETTINGS, *_EMBEDDER, *_TERMS)
_NEVER = (
    ".py",
    ".pyc",
    ".so",
    *PICKLES,
    ".pickle",
    ".sh",
    ".safetensors",
)
"""What may run, may be unpickled, or is another model: whatever it is called, it is left behind."""


def companions(folder: Path, *, embedder: bool = True) -> list[str]:
    """Return the companion files of a model's folder, by their paths in it.

    Args:
        folder: A model's folder.
        embedder: With those that make a sentence embedder of it.
    """
    names = [name for name in _files(folder) if is_companion(name)]
    return [name for name in names if embedder or not _matches(name, _EMBEDDER)]


def is_companion(name: str) -> bool:
    """Tell whether a file of a folder or repository, by its path there, is one."""
    part = _matches(name, _EMBEDDER) and "/" in name
    nested = "/" in name and not part and not name.startswith(f"{CHAT_TEMPLATES}/")
    runs = name.lower().endswith(_NEVER) and not (part and name.endswith(".safetensors"))
    return not nested and name.count("/") < 2 and not runs and _matches(name, PATTERNS)


def offered(folder: Path) -> tuple[str, ...]:
    """Return what lies in a model's folder; of a folder in it that nobody reads its name with a slash."""
    if not folder.is_dir():
        return ()
    read = {Path(name).parent.name for name in _files(folder)}
    names = list(_files(folder))
    names += [
        f"{path.name}/" for path in folder.iterdir() if path.is_dir() and path.name not in read
    ]
    names += [path.name for path in folder.iterdir() if not path.is_dir() and not path.is_file()]
    return tuple(name if name.isprintable() else ascii(name) for name in sorted(names))


def _files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if path.is_file():
            yield path.name
        elif path.name in (CHAT_TEMPLATES, *modules(folder)):
            yield from (
                f"{path.name}/{file.name}" for file in sorted(path.iterdir()) if file.is_file()
            )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
