from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def talkative(tiny_model):
    """Models whose LLM is random enough to say different things of different lengths."""

    def build(**changes):
        model = tiny_model(**changes)
        with torch.no_grad():
            for parameter in model.llm.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.2)
            model.llm.get_output_embeddings().weight[model.tokenizer.eos_id] *= 2.5
        return model

    return build
