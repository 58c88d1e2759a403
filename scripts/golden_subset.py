"""Makes tests/golden from a full directory of golden tensors: three checkpoints, their inputs, and what is compared.

    python scripts/golden_subset.py ../shared/reference/official tests/golden

Numbers only, and nothing that is compared loses precision: clips are 16-bit samples and 8-bit pixels already (pixels
are stored as differences in time, which pack better), long outputs are cut to their last positions.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np

VARIANTS = ("ST_qwen", "stack")  # Llama and Qwen, S and ST, average and stack
SINGLE = ("llama_avsr/asr_avg_ln_sink",)  # one task, LayerNorm, decorrelation loss
TAIL = 6  # positions
KEPT_FACTS = (
    *("rank", "alpha", "lora_scaling", "rates_audio", "rates_video", "ratio_audio", "ratio_video", "modality", "meta"),
    *("argv", "task_weights", "avhubert", "sink", "sink_factor"),
)
FRAMES = ("proj_audio", "proj_video", "enc_audio", "enc_video", "embeds", "logits")


def main(source: Path, target: Path) -> None:
    """Writes the subset."""
    target.mkdir(parents=True, exist_ok=True)
    common = dict(np.load(source / "common.npz"))
    shared: dict[str, np.ndarray] = {}
    for name in (*VARIANTS, *SINGLE):
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / f"{name}.pt", target / f"{name}.pt")
        facts = json.loads((source / f"{name}.json").read_text())
        (target / f"{name}.json").write_text(json.dumps({k: v for k, v in facts.items() if k in KEPT_FACTS}, indent=1))
        arrays = dict(np.load(source / f"{name}_io.npz"))
        links = dict(str(entry).split("=") for entry in arrays.pop("__common__", ()))
        arrays |= {key: common[link] for key, link in links.items()}
        if name in VARIANTS:
            shared |= clips(arrays)
        eos = facts.get("tokenizer", {}).get("eos_id", 0)
        kept = {name: value for key in arrays for name, value in cut(key, arrays, eos)}
        inputs = [f"{key}={key}" for key in shared] if name in VARIANTS else []
        np.savez_compressed(target / f"{name}_io.npz", **kept, **({"__common__": np.array(inputs)} if inputs else {}))
    np.savez_compressed(target / "common.npz", **shared)
    for folder in ("tokenizer_llama", "tokenizer_qwen", "configs"):
        shutil.copytree(source / folder, target / folder, dirs_exist_ok=True)
    table = json.loads((source / "common.json").read_text())["truncation"]
    table["rows"] = [row for row in table["rows"] if len(set(row[1:])) > 1][::10]
    (target / "common.json").write_text(json.dumps({"truncation": table}))
    keys = {path.stem: folded(json.loads(path.read_text())) for path in sorted((source / "full_keys").glob("*.json"))}
    packed = gzip.compress(json.dumps(keys, separators=(",", ":")).encode(), mtime=0)
    (target / "full_keys.json.gz").write_bytes(packed)


def folded(shapes: dict[str, list[int]]) -> list[list[object]]:
    """[key with * for the layer, shape, number of layers or 0] for every key."""
    layers: dict[tuple[str, str], list[int | None]] = {}
    for key, shape in shapes.items():
        match = re.search(r"(?<=layers\.)\d+", key)
        pattern = f"{key[: match.start()]}*{key[match.end() :]}" if match else key
        layers.setdefault((pattern, json.dumps(shape)), []).append(int(match[0]) if match else None)
    return [[key, json.loads(s), 0 if found == [None] else len(found)] for (key, s), found in layers.items()]


def clips(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The two clips, packed without loss."""
    out = {}
    for clip in (0, 1):
        wave = arrays[f"in/wav{clip}"] * 32768
        assert np.array_equal(wave, wave.round()), "the samples are not 16-bit"
        out[f"in/wav{clip}"] = wave.astype(np.int16)
        frames = arrays[f"in/video{clip}_u8"][:, 4:92, 4:92]
        out[f"in/video{clip}_delta"] = np.diff(frames, axis=0, prepend=np.zeros_like(frames[:1]))  # modulo 256
    return out


def cut(key: str, arrays: dict[str, np.ndarray], eos: int) -> list[tuple[str, np.ndarray]]:
    """What is kept of an array, under which names."""
    array, leaf = arrays[key], key.rpartition("/")[2]
    if key.startswith(("in/", "tok/", "grad/fwd/")):
        return []
    if key.startswith("train/b2/") and leaf in ("embeds", "logits"):
        tokens, length = arrays["train/tokens"], array.shape[1]
        ends = [length - tokens.shape[1] + int(np.argmax(row == eos)) for row in tokens]  # where nothing more is read
        return [(f"{key}#{row}#tail", array[row, end - TAIL : end]) for row, end in enumerate(ends)]
    if leaf in FRAMES:
        return [(f"{key}#tail", array[..., -TAIL:, :])]
    if leaf == "beam15_all_scores":
        return [(key, array[:1])]
    scalar_or_ids = array.size == 1 or leaf == "labels" or (leaf.endswith("_ids") and not leaf.endswith("_all_ids"))
    return [(key, array)] if scalar_or_ids or key.startswith("grad/") else []


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
