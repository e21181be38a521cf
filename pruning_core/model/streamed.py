"""`StreamedModel`: a stock transformers model whose blocks hold no memory until they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from pruning_core.checkpoints.facts import CheckpointFacts
from pruning_core.errors import ModelInvalid
from pruning_core.families import family_of
from pruning_core.model import stock
from pruning_core.model.block_calls import Call, CallRecorder, replaced_forward
from pruning_core.model.experts import unfuse
from pruning_core.model.preflight import configuration
from pruning_core.model.tensors import TensorFiles, main_dtype
from pruning_core.system.device import compute_dtype
from pruning_core.system.user_faults import blamed_on


class StreamedModel:
    """Embeddings, norms and head are in memory; a block is read from safetensors while it is in use.

    Args:
        folder: Hugging Face folder.
        facts: What `inspect(folder)` returned.
        device: Where to compute.
        eager: Compute attention so that its probabilities can be seen.
    """

    def __init__(
        self, folder: Path, facts: CheckpointFacts, device: torch.device, *, eager: bool = False
    ) -> None:
        self.device = device
        self.family = family_of(facts.model_type)
        self.files = TensorFiles(folder, facts, self.family)
        self.stored_dtype = main_dtype(facts)
        self.dtype = compute_dtype(self.stored_dtype, device)
        self.model: Any = _skeleton(facts, self.dtype, device, eager=eager)
        self.config: Any = self.model.config
        self.blocks: list[nn.Module] = list(self.model.get_submodule(self.family.blocks))
        with torch.device("meta"):
            for block in self.blocks:
                unfuse(block, self.family, self.config)
        self._empty = [block.state_dict() for block in self.blocks]
        self._load_rest()

    def block_prefix(self, index: int) -> str:
        """Return the path of a block in the model, with a dot at the end."""
        return f"{self.family.blocks}.{index}."

    def stored(self, index: int, parameter: str) -> str:
        """Return the name under which the checkpoint stores a parameter of a block that it has."""
        name = self.files.stored_name(self.block_prefix(index) + parameter)
        assert name is not None
        return name

    @contextmanager
    def block(
        self, index: int, weights: dict[str, torch.Tensor] | None = None
    ) -> Iterator[nn.Module]:
        """Yield a block with the given weights, by default the checkpoint's; they are dropped afterwards."""
        module = self.blocks[index]
        _assign(module, self.dense(index) if weights is None else weights)
        try:
            yield module
        finally:
            module.load_state_dict(self._empty[index], assign=True)

    def dense(self, index: int) -> dict[str, torch.Tensor]:
        """Return a block's weights as the checkpoint has them, under the module's names."""
        prefix = self.block_prefix(index)
        names = [prefix + name for name in self._empty[index]]
        tensors = self.files.load(names, dtype=self.dtype, device=self.device)
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}

    def embed(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor | None = None,
        visible: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[Call]]:
        """Return the input of the first block, [batch, seq, dim], and every block's other arguments.

        Args:
            tokens: int64 [batch, seq].
            positions: int64 [batch, seq]; None for 0, 1, 2, ...
            visible: bool [batch, seq, seq], what each token sees; None for all that stands before it.
        """
        recorder = CallRecorder()
        arguments: dict[str, torch.Tensor] = {}
        if positions is not None:
            arguments["position_ids"] = positions.to(self.device)
        if visible is not None:
            arguments["attention_mask"] = self._additive(visible)
        with ExitStack() as stack:
            for block in self.blocks:
                stack.enter_context(replaced_forward(block, recorder.record))
            self.model.base_model(input_ids=tokens.to(self.device), use_cache=False, **arguments)
        return recorder.first_hidden(), recorder.calls

    def _additive(self, visible: torch.Tensor) -> torch.Tensor:
        """Return a mask as stock models take it, [batch, 1, seq, seq]: 0 where a token sees, the lowest number elsewhere."""
        lowest = torch.finfo(self.dtype).min
        mask = torch.zeros(visible.shape, dtype=self.dtype).masked_fill_(~visible, lowest)
        return mask[:, None].to(self.device)

    def logits(
        self, tokens: torch.Tensor, hidden: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Return the head's logits, [batch, positions, vocabulary].

        Args:
            tokens: int64 [batch, seq].
            hidden: Output of the last block, [batch, seq, dim].
            positions: int64, which positions to compute.
        """
        with ExitStack() as stack:
            for block in self.blocks:
                stack.enter_context(replaced_forward(block, lambda *_args, **_kwargs: hidden))
            ids = tokens.to(self.device)
            output = self.model(
                input_ids=ids,
                position_ids=torch.zeros_like(ids),  # of embeddings that the given states replace
                use_cache=False,
                logits_to_keep=positions.to(self.device),
            )
        logits: torch.Tensor = output.logits
        return logits

    def _load_rest(self) -> None:
        """Load everything outside the blocks.

        As in stock transformers a tied pair needs one of the two in the file, and two that differ are not tied.
        """
        tied: dict[str, str] = self.model.all_tied_weights_keys
        prefix = f"{self.family.blocks}."
        names = {name for name in self.model.state_dict() if not name.startswith(prefix)}
        for pair in tied.items():
            absent = [name for name in pair if self.files.stored_name(name) is None]
            if len(absent) == 1:
                names.remove(absent[0])
        tensors = self.files.load(sorted(names), dtype=self.dtype, device=self.device)
        apart = False
        for head, embedding in tied.items():
            if head in tensors and embedding in tensors:
                apart |= not torch.equal(tensors[head], tensors[embedding])
            elif head in tensors:
                tensors[embedding] = tensors.pop(head)
        _assign(self.model, tensors)
        if not apart:
            self.model.tie_weights()


def _skeleton(
    facts: CheckpointFacts, dtype: torch.dtype, device: torch.device, *, eager: bool
) -> Any:
    """Build the model without memory for parameters; buffers that no checkpoint stores are computed."""
    config = configuration(facts)
    stock.quieten(config)
    chosen = {"attn_implementation": "eager"} if eager else {}
    with blamed_on("transformers refuses config.json"), torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, **chosen)  # type: ignore[no-untyped-call]
    for name, buffer in list(model.named_non_persistent_buffers()):
        path, _, leaf = name.rpartition(".")
        model.get_submodule(path).register_buffer(
            leaf, torch.empty_like(buffer, device=device), persistent=False
        )
    model.initialize_weights()
    return model.eval()


def _assign(module: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    expected = module.state_dict()
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ModelInvalid(
                f"{name} has shape {list(tensor.shape)}, config.json calls for {list(expected[name].shape)}"
            )
    module.load_state_dict(tensors, assign=True, strict=False)
