"""Converts a model for OpenVINO. Only the process of notes.embeddings.preparation imports this.

The converted network takes token ids and a mask, and returns sentence vectors. transformers uses
scaled_dot_product_attention for all models that support it, so OpenVINO gets one operation for the
attention of each layer.
"""

from __future__ import annotations

import logging

import openvino
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from sentence_transformers import SentenceTransformer


class Network(torch.nn.Module):
    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.model({"input_ids": ids, "attention_mask": mask})[
            "sentence_embedding"
        ]
        return vectors


def convert(folder: str, target: str) -> None:
    """Convert the model in `folder`, in the format of sentence-transformers, into the file `target`.

    Does what openvino.convert_model does, without its report over the network that it was used.
    """
    # It warns of names of its own that are deprecated, because the trace reads all of them.
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    network = Network(SentenceTransformer(folder, device="cpu")).eval()
    example = torch.ones((2, 8), dtype=torch.long)
    with torch.no_grad():
        traced = TorchScriptPythonDecoder(network, example_input=(example, example))
    frontend = FrontEndManager().load_by_framework("pytorch")
    openvino.save_model(frontend.convert(frontend.load(traced)), target, compress_to_fp16=False)
