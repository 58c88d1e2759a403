"""How many passes of the LLM a draft saves in greedy search, on real clips one by one, and that the words are the same.

python benchmarks/drafts.py data/grid/manifest.jsonl [--model default] [--split dev] [--limit 50] [--beam_size 1]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from omni_avsr.checkpoints.native import load_for_inference
from omni_avsr.data.manifest import read_manifest
from omni_avsr.data.mouth_store import read_store, to_float
from omni_avsr.media.features import extract
from omni_avsr.model.batch import collate
from omni_avsr.model.decode import DecodeOptions, Search, prompts


@torch.inference_mode()
def main() -> None:
    """Prints a line per task."""
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path, help="with mouth files, as 'prepare --mouths' writes it")
    parser.add_argument("--model", default="default")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--beam_size", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_for_inference(options.model, offline=True)
    rows = [row for row in read_manifest(options.manifest) if row.split == options.split][: options.limit]
    clips = []
    for row in rows:
        stored = read_store(row.mouths)
        sound = None if stored.audio is None else to_float(stored.audio)
        clips.append(collate([extract(sound, stored.crops, model.config.preprocess, id=row.id)]))
    encoded = [model.encode(clip) for clip in clips]
    print("task | passes without, with | fewer | positions without, with | seconds without, with | same words")
    for task in model.config.tasks:
        passes, positions, seconds, said = [0, 0], [0, 0], [0.0, 0.0], ([], [])
        for clip, states in zip(clips, encoded, strict=True):
            for drafted in (0, 1):
                asked = DecodeOptions(options.beam_size, draft=bool(drafted))
                begun = time.process_time()
                asking = prompts(model, clip, task, {}, asked, states)
                search = Search(model, asked)
                said[drafted].append([hypothesis.tokens for _, hypothesis in search.run(asking)])
                seconds[drafted] += time.process_time() - begun
                passes[drafted] += search.passes
                positions[drafted] += search.positions
        same = sum(a == b for a, b in zip(*said, strict=True))
        print(
            f"{task} | {passes[0]}, {passes[1]} | {passes[0] / passes[1]:.2f} | {positions[0]}, {positions[1]} | "
            f"{seconds[0]:.2f}, {seconds[1]:.2f} | {same}/{len(clips)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
