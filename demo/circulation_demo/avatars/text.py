"""What stands in for a text encoder: a table of embeddings for each factor. ComfyUI's CLIPTextEncode takes it as a CLIP."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from .factors import codes, parse, vocabulary

log = logging.getLogger(__name__)


class FactorEncoder:
    """`tables` holds for each factor (values + 1, 64): row 0 stands for a factor that is left open."""

    def __init__(self, tables: Sequence[Tensor]):
        self.tables = tuple(table.float() for table in tables)

    def tokenize(self, text: str, **_) -> list[int]:
        values, unknown = parse(text)
        if unknown:
            log.warning("The avatar model does not know: %s. It knows: %s.", ", ".join(unknown), vocabulary())
        return codes(values)

    def encode(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """(B, factors, 64) of B prompts' codes."""
        return torch.stack([torch.stack([table[code] for table, code in zip(self.tables, prompt)]) for prompt in tokens])

    def encode_from_tokens_scheduled(self, tokens: list[int], **_) -> list:
        return [[self.encode([tokens]), {"pooled_output": None}]]

    def encode_from_tokens(self, tokens: list[int], **_) -> Tensor:
        return self.encode([tokens])

    def clone(self) -> FactorEncoder:
        return self
