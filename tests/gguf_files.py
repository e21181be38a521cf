"""GGUF files of tiny models, written with the `gguf` package as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter

from tests import tiny

ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3_moe": "qwen3moe",
    "gemma2": "gemma2", "gemma3_text": "gemma3", "phi3": "phi3", "gpt2": "gpt2",
}  # fmt: skip
# Names that a converter gives to what transformers' modules hold fused.
_FUSED = {"mlp.experts.gate_up_proj": ("ffn_gate_exps", "ffn_up_exps"), "mlp.experts.down_proj": ("ffn_down_exps",)}  # fmt: skip


def write(
    path: Path,
    model: Any,
    *,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    leave_out: Iterable[str] = (),
    extra: Mapping[str, np.ndarray[Any, Any]] | None = None,
    keys: Mapping[str, Any] | None = None,
    split: tuple[int, int] | None = None,
    tokenizer: bool = True,
) -> Path:
    """Write one file and return its path.

    Args:
        path: Where.
        model: A model of `tiny`.
        kind: Type of its matrices; vectors are F32.
        leave_out: Tensors whose names start so are left out, and settings that are called so.
        extra: Further tensors.
        keys: Further settings, without the architecture; they replace those of the same name.
        split: Which part of how many.
        tokenizer: Write the byte-level vocabulary.
    """
    architecture = ARCHITECTURES[model.config.model_type]
    writer = GGUFWriter(path, architecture)
    if split is not None:
        writer.add_uint16("split.no", split[0])
        writer.add_uint16("split.count", split[1])
    if not split or split[0] == 0:
        for key, value in (settings(model.config) | dict(keys or {})).items():
            if key not in leave_out:
                _add(writer, f"{architecture}.{key}", value)
        if tokenizer:
            _tokenizer(writer, model.config.vocab_size)
    skipped = tuple(leave_out)
    for name, array in (tensors(model, architecture) | dict(extra or {})).items():
        if not name.startswith(skipped):
            _add_tensor(writer, name, array, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def settings(config: Any) -> dict[str, Any]:
    """Return what a converter says of a configuration."""
    if config.model_type == "gpt2":
        return {
            "context_length": config.n_positions, "embedding_length": config.n_embd, "block_count": config.n_layer,
            "feed_forward_length": 4 * config.n_embd, "attention.head_count": config.n_head,
            "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        }  # fmt: skip
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    share = rope.get("partial_rotary_factor") or 1.0
    found = {
        "vocab_size": config.vocab_size, "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size, "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size, "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps, "rope.freq_base": rope["rope_theta"],
        "rope.dimension_count": int(share * head_dim),
    }  # fmt: skip
    if head_dim * config.num_attention_heads != config.hidden_size or config.model_type != "llama":
        found |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
    if config.model_type.startswith(("gemma", "mistral")) and config.sliding_window:
        found["attention.sliding_window"] = config.sliding_window
    if config.model_type.startswith("gemma"):
        kinds = [kind == "sliding_attention" for kind in config.layer_types]
        found["attention.sliding_window_pattern"] = kinds
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, key, None):
            found[key] = getattr(config, key)
    if config.model_type in ("mixtral", "qwen3_moe"):
        found |= {
            "expert_count": config.num_local_experts,
            "expert_used_count": config.num_experts_per_tok,
        }
    if config.model_type == "qwen3_moe":
        found["expert_feed_forward_length"] = config.moe_intermediate_size
    return found


def tensors(model: Any, architecture: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return the tensors under GGUF's names, changed as llama.cpp's converter changes them."""
    config = model.config
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    found = {}
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = parameter.float().numpy()
        fused = next((names for ending, names in _FUSED.items() if name.endswith(ending)), None)
        if fused is not None:
            block = name.split(".")[2]
            for part, half in zip(fused, np.split(array, len(fused), axis=1), strict=True):
                found[f"blk.{block}.{part}.weight"] = half
            continue
        path, _, leaf = name.rpartition(".")
        path = path.replace("mlp.gate", "block_sparse_moe.gate") if name.endswith("mlp.gate.weight") else path  # fmt: skip
        told = names.get_name(path)
        assert told is not None, name
        found[f"{told}.{leaf}"] = _changed(array, name, told, config)
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def _changed(
    array: np.ndarray[Any, Any], name: str, told: str, config: Any
) -> np.ndarray[Any, Any]:
    if ARCHITECTURES[config.model_type] == "llama" and told.endswith(("attn_q", "attn_k")):
        heads = config.num_attention_heads if told.endswith("q") else config.num_key_value_heads
        halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
        return halves.swapaxes(1, 2).reshape(array.shape)
    if config.model_type.startswith("gemma") and name.endswith("norm.weight"):
        return array + np.float32(1)
    if config.model_type == "gpt2" and array.ndim == 2 and told.startswith("blk."):
        return array.T
    return array


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    adders: dict[type, Any] = {
        bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
        list: writer.add_array, tuple: writer.add_array,
    }  # fmt: skip
    adders[type(value)](key, value)


def _add_tensor(
    writer: GGUFWriter, name: str, array: np.ndarray[Any, Any], kind: GGMLQuantizationType
) -> None:
    array = array.astype(np.float32)
    if array.ndim < 2 or kind == GGMLQuantizationType.F32:
        writer.add_tensor(name, array)
        return
    if kind == GGMLQuantizationType.F16:
        writer.add_tensor(name, array.astype(np.float16))
        return
    writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)


def _tokenizer(writer: GGUFWriter, size: int) -> None:
    known = sorted(tiny.tokenizer().get_vocab().items(), key=lambda item: item[1])
    words = [word for word, _ in known] + ["th", "er"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words + [f"[PAD{number}]" for number in range(len(words), size)])
    writer.add_token_types([3, 3, 3] + [1] * (len(words) - 3) + [5] * (size - len(words)))
    writer.add_token_merges(["t h", "e r"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)


def decoded(model: Any, kind: GGMLQuantizationType) -> Any:
    """Round a model's matrices as a file of this type does, in place, and return it."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                flat = parameter.float().numpy()
                back = gguf.dequantize(gguf.quantize(flat, kind), kind).reshape(flat.shape)
                parameter.copy_(torch.from_numpy(back))
    return model
