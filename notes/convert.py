"""`python -m notes.convert <folder> <file.xml>`: a sentence-transformers model for OpenVINO.

The network that is converted is the whole of it: token ids and mask in, sentence vector out.
"""

from __future__ import annotations

import sys

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
    """What openvino.convert_model does, but for one thing: that reports its use over the network."""
    network = Network(SentenceTransformer(folder, device="cpu")).eval()
    example = torch.ones((2, 8), dtype=torch.long)
    with torch.no_grad():
        traced = TorchScriptPythonDecoder(network, example_input=(example, example))
    frontend = FrontEndManager().load_by_framework("pytorch")
    openvino.save_model(frontend.convert(frontend.load(traced)), target, compress_to_fp16=False)


if __name__ == "__main__":
    convert(*sys.argv[1:])
