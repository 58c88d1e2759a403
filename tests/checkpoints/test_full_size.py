"""A checkpoint of the published size is imported within 12 GB of memory.

`make full-size` runs it; it takes minutes and 8 GB of disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from omni_avsr.checkpoints.systems import OFFICIAL_TASK
from omni_avsr.tasks import TASKS

ENABLED = os.environ.get("OMNI_AVSR_FULL_SIZE") == "1"
LIMIT = 12 * 2**30  # bytes
LETTERS = "abcdefghijklmnopqrstuvwxyz .T"  # the tokens 0, 1, 2 ... of a tokenizer without merges

BUILD = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
from tests.checkpoints.test_real_sizes import official
noise = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0)).mul(0.02).bfloat16()  # tiled: it is faster
def random(shape):
    return noise.repeat(-(-shape.numel() // len(noise)))[: shape.numel()].clone().view(shape)
tensors = {k: random(v.shape) for k, v in official("ST_Llama-3.2-1B").items()}
table = tensors["llm.model.embed_tokens.weight"]
tensors["llm.lm_head.weight"] = table
for task, text in json.loads(sys.argv[3]).items():
    tensors[f"prompt_{task}"] = table[[sys.argv[4].index(letter) for letter in text]][None].clone()
for key in [k for k in tensors if k.endswith("num_batches_tracked")]:
    tensors[key] = torch.tensor(1)
torch.save(tensors, sys.argv[2])
"""

IMPORT = """
import json, resource, sys
from omni_avsr.checkpoints.official import import_checkpoint
from omni_avsr.checkpoints import load_model
out = import_checkpoint("omni-avsr", sys.argv[1], sys.argv[3], llm=sys.argv[2], offline=True)
imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
model = load_model(out, dtype=__import__("torch").bfloat16)
print(json.dumps({"peak": imported, "parameters": sum(p.numel() for p in model.parameters())}))
"""


def _llm(folder: Path) -> Path:
    """Llama-3.2-1B's configuration with a tokenizer of its size."""
    folder.mkdir()
    vocabulary = {letter: i for i, letter in enumerate(LETTERS)}
    vocabulary |= {f"<unused{i}>": i for i in range(len(vocabulary), 128_000)}
    special = {"<|begin_of_text|>": 128_000, "<|end_of_text|>": 128_001}
    special |= {f"<reserved{i}>": i for i in range(128_002, 128_256)}
    added = [
        {
            "id": i,
            "content": t,
            "special": True,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "single_word": False,
        }
        for t, i in special.items()
    ]
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    tokenizer = {"version": "1.0", "added_tokens": added, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    config = {
        "model_type": "llama",
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "tie_word_embeddings": True,
        "vocab_size": 128_256,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not ENABLED, reason="run by make full-size; needs 8 GB of disk and minutes")
def test_a_full_size_checkpoint_within_12_gb(tmp_path: Path) -> None:
    root, file = Path(__file__).parent.parent.parent, tmp_path / "model_avg_1.pth"
    prompts = json.dumps({OFFICIAL_TASK[name]: task.prompt for name, task in TASKS.items()})
    subprocess.run([sys.executable, "-c", BUILD, str(root), str(file), prompts, LETTERS], check=True)
    assert file.stat().st_size > 3.8e9
    arguments = [str(file), str(_llm(tmp_path / "llm")), str(tmp_path / "out")]
    result = subprocess.run(
        [sys.executable, "-c", IMPORT, *arguments], check=True, capture_output=True, text=True, cwd=root
    )
    facts = json.loads(result.stdout.splitlines()[-1])
    assert facts["peak"] < LIMIT
    assert facts["parameters"] == pytest.approx(1.93e9, rel=0.01)
    print(f"peak {facts['peak'] / 2**30:.2f} GiB, {facts['parameters'] / 1e9:.3f} G parameters")
