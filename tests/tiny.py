"""Tiny random models of every `model_type` in the registry, saved as stock transformers would save them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCAB = 300
BLOCKS = 3

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_LOCAL_AND_GLOBAL = {
    "head_dim": 8,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
_OVERRIDES: dict[str, dict[str, Any]] = {
    "gemma2": _LOCAL_AND_GLOBAL | {"query_pre_attn_scalar": 8},
    "gemma3_text": _LOCAL_AND_GLOBAL | {"query_pre_attn_scalar": 8},
    "gpt_oss": _LOCAL_AND_GLOBAL
    | {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 150_000.0,
            "factor": 32.0,
            "original_max_position_embeddings": 8,
            "truncate": False,
        },
    },
    "mistral": {"sliding_window": 8},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 16},
    "phi": {"partial_rotary_factor": 0.5},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": {
        "head_dim": 8,
        "intermediate_size": 64,  # of no block: all are sparse
        "moe_intermediate_size": 48,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
    },
}
_GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": 32,
    "n_layer": BLOCKS,
    "n_head": 4,
    "n_positions": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def config(model_type: str, **changes: Any) -> Any:
    """Return the config of a tiny model."""
    values = _GPT2 if model_type == "gpt2" else _COMMON | _OVERRIDES.get(model_type, {})
    return CONFIG_MAPPING[model_type](**(values | changes))


def build(model_type: str, *, seed: int = 0, **changes: Any) -> Any:
    """Return a random model in evaluation mode; weights are large enough for its outputs to differ by token."""
    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_config(config(model_type, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
    model.tie_weights()
    return model


def save(
    folder: Path, model_type: str, *, dtype: torch.dtype = torch.float32, **changes: Any
) -> Path:
    """Save a tiny model with a tokenizer and return the folder."""
    build(model_type, **changes).to(dtype).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def tokenizer() -> Any:
    """Return a byte-level tokenizer: every byte is one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<pad>": 0, "<s>": 1, "</s>": 2} | {char: 3 + i for i, char in enumerate(alphabet)}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def tokens(windows: int = 6, seq: int = 24, *, seed: int = 1) -> torch.Tensor:
    """Return random token ids, int64 [windows, seq]."""
    return torch.randint(3, VOCAB, (windows, seq), generator=torch.Generator().manual_seed(seed))


def begin_texts(folder: Path) -> None:
    """Let the tokenizer put <s> before every text."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    path.write_text(json.dumps(content))
