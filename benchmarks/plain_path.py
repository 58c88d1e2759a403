"""Whether exact mode says what the plain path says, on real clips: tokens compared, one by one.

    python benchmarks/plain_path.py runs/data/grid/manifest.jsonl [--model default] [--limit 50] [--beams 1 5 15]

Plain: weights as stored, one clip at a time, a prompt copied per beam, transformers' `generate`. Ours: packed weights,
all clips of a task in one batch, prompts read once, drafts in greedy search. The CTC heads' say (`ctc.decode_weight`)
is switched off in both, since the plain path has none.
The exit status is 1 where a clip differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from vs_reference import generated

from omni_avsr.checkpoints import load_model
from omni_avsr.checkpoints.folder import folder_digest, locate
from omni_avsr.checkpoints.native import load_for_inference
from omni_avsr.data.dataset import load_sample
from omni_avsr.data.manifest import read_manifest
from omni_avsr.evaluate.provenance import provenance
from omni_avsr.media.features import extract
from omni_avsr.model.batch import collate
from omni_avsr.model.decode import DecodeOptions, Search, prompts
from omni_avsr.model.omni import OmniAVSR


@torch.inference_mode()
def main() -> None:
    """Prints a line per task and beam size, and writes JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5, 15])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/plain_path.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    plain, ours = load_model(options.model, offline=True), load_for_inference(options.model, "cpu", offline=True)
    for model in (plain, ours):
        model.config = model.config.model_copy(
            update={"ctc": model.config.ctc.model_copy(update={"decode_weight": 0.0})}
        )
    rows = [row for row in read_manifest(options.manifest) if row.split == options.split][: options.limit]
    samples = [load_sample(row) for row in rows]
    clips = [extract(s.audio, s.mouths, plain.config.preprocess, id=s.id) for s in samples]
    every = collate(clips)
    encoded = ours.encode(every)
    table: list[dict[str, Any]] = []
    for task in plain.config.tasks:
        rates = plain.check_rates(task)
        prefixes = [_prefix(plain, collate([clip]), task, rates) for clip in clips]
        for beams in options.beams:
            asked = DecodeOptions(beams)
            prompted = prompts(ours, every, task, rates, asked, encoded)
            said = dict(Search(ours, asked).run(prompted))
            expected = [
                generated(plain, prefix, task, beams, prompt.limit)
                for prefix, prompt in zip(prefixes, prompted, strict=True)
            ]
            differ = [row.id for i, row in enumerate(rows) if list(said[i].tokens) != expected[i]]
            table.append({"task": task, **rates, "beams": beams, "clips": len(rows), "differ": differ})
            print(
                f"{task:4} {beams:3} beams: {len(rows) - len(differ)} of {len(rows)} equal {differ or ''}", flush=True
            )
    weights = folder_digest(locate(options.model))
    meta = {"model": options.model, "weights": weights, "split": options.split, **provenance(plain.device)}
    options.out.write_text(json.dumps({"meta": meta, "rows": table}, indent=1) + "\n", "utf-8")
    sys.exit(any(row["differ"] for row in table))


def _prefix(model: OmniAVSR, clip: Any, task: str, rates: dict[str, int]) -> torch.Tensor:
    """(L, H): what is read before the answer, of a batch of one."""
    return model.prefixes(task, model.project(model.encode(clip, list(rates)), rates).tokens, [0])[0]


if __name__ == "__main__":
    main()
