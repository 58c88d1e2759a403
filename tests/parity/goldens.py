"""Golden tensors of the official code: a directory of them, and one checkpoint with its inputs and outputs.

`OMNI_AVSR_GOLDENS` names a full directory (`make parity`); without it the small subset in tests/golden is used, which
`scripts/golden_subset.py` made. In the subset some arrays are cut: `name#tail` holds the last positions of `name`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omni_avsr.checkpoints import load_model
from omni_avsr.checkpoints.official import import_checkpoint
from omni_avsr.checkpoints.systems import OFFICIAL_TASK, Flags
from omni_avsr.media.features import extract
from omni_avsr.model.batch import collate
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.types import Batch, Features

ROOT = Path(os.environ.get("OMNI_AVSR_GOLDENS") or Path(__file__).parent.parent / "golden")
OUR_TASK = {official: ours for ours, official in OFFICIAL_TASK.items()}
TAIL = "#tail"
GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green, blue
CROP = slice(4, 92)  # the centre 88 of 96 pixels


def variants(kind: str) -> list[str]:
    """Names of the golden checkpoints of a system: 'omni-avsr' at the top, 'llama-avsr' in its folder."""
    folder = ROOT if kind == "omni-avsr" else ROOT / "llama_avsr"
    return sorted(str(path.relative_to(ROOT).with_suffix("")) for path in folder.glob("*.pt") if _has_io(path))


def bf16_variants() -> list[str]:
    """Variants of which an official bfloat16 run is there."""
    return sorted(path.stem.removesuffix("_bf16") for path in ROOT.glob("*_bf16.npz"))


def _has_io(path: Path) -> bool:
    return path.with_name(f"{path.stem}_io.npz").exists()


class Arrays:
    """An .npz of a variant; arrays that variants share lie in common.npz."""

    def __init__(self, path: Path) -> None:
        self.own = np.load(path)
        shared = self.own["__common__"] if "__common__" in self.own.files else ()
        self.shared = dict(str(entry).split("=") for entry in shared)
        self.common = np.load(ROOT / "common.npz") if self.shared else {}
        self.names = [name for name in self.own.files if name != "__common__"] + list(self.shared)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(self.common[self.shared[name]] if name in self.shared else self.own[name])


class Golden:
    """One official checkpoint, imported, with its official inputs and outputs."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.kind = "llama-avsr" if "/" in name else "omni-avsr"
        self.facts: dict[str, Any] = json.loads((ROOT / f"{name}.json").read_text())
        self.arrays = Arrays(ROOT / f"{name}_io.npz")

    # ---- importing -----------------------------------------------------------------------

    @property
    def checkpoint(self) -> Path:
        """The official file."""
        return ROOT / f"{self.name}.pt"

    @cached_property
    def llm(self) -> Path:
        """A directory with the LLM's configuration and tokenizer, and no weights."""
        family = "qwen" if "qwen" in self._argument("--llm-model").lower() else "llama"
        return self._directory(family, f"configs/{family}_config.json", ROOT / f"tokenizer_{family}")

    @cached_property
    def whisper(self) -> Path:
        """A directory with the audio encoder's configuration."""
        return self._directory("whisper", "configs/whisper_config.json", None)

    @property
    def avhubert(self) -> Path:
        """A fairseq file of the video encoder's size; not every set of goldens has it."""
        return ROOT / self._argument("--pretrain-avhubert-enc-video-path")

    @property
    def max_new_tokens(self) -> int:
        """Longest answer of the official runs."""
        return int(self._argument("--max-dec-tokens"))

    def _argument(self, name: str) -> str:
        """What the official command line said."""
        argv: list[str] = self.facts["argv"]
        return argv[argv.index(name) + 1]

    def _directory(self, name: str, config: str, tokenizer: Path | None) -> Path:
        target = self.folder / name
        if not target.exists():
            target.mkdir(parents=True)
            for path in [*(tokenizer.iterdir() if tokenizer else ())]:
                shutil.copyfile(path, target / path.name)
            shutil.copyfile(ROOT / config, target / "config.json")
        return target

    def flags(self, **changes: Any) -> Flags:
        """What the training command said."""
        rates = {}
        for modality in ("audio", "video"):
            given = self.facts.get(f"rates_{modality}", self.facts.get(f"ratio_{modality}"))
            used = self.facts.get("modality", "audiovisual") in (modality, "audiovisual")
            rates[f"{modality}_rates"] = tuple(np.atleast_1d(given).tolist()) if used else ()
        scaling = {name: self.facts[name] for name in ("rank", "alpha")}
        return Flags(**rates | scaling | {"video_heads": self.heads} | changes)

    @property
    def heads(self) -> int | None:
        """Attention heads of AV-HuBERT, where the facts tell them."""
        return self.facts.get("avhubert", {}).get("encoder_attention_heads")

    def imported(self, bf16: bool = False) -> OmniAVSR:
        """The model, out of a folder of ours."""
        out = self.folder / f"{self.name.replace('/', '_')}{'_bf16' * bf16}"
        if not out.exists():
            import_checkpoint(
                self.kind,
                self.checkpoint,
                out,
                llm=str(self.llm),
                audio_encoder=str(self.whisper),
                video_encoder=str(self.avhubert) if self.avhubert.exists() else "",
                flags=self.flags(bf16=bf16),
                offline=True,
            )
        return load_model(out, dtype=torch.bfloat16 if bf16 else None)

    # ---- inputs --------------------------------------------------------------------------

    @cached_property
    def inputs(self) -> Arrays:
        """Where the clips are: those of llama_avsr are those of the other variants."""
        if "in/wav0" in self.arrays:
            return self.arrays
        return Arrays(ROOT / f"{variants('omni-avsr')[0]}_io.npz")

    def wave(self, clip: int) -> np.ndarray:
        """(S,) float32 of one of the two clips, not normalised."""
        stored = self.inputs[f"in/wav{clip}"].numpy()
        return stored.astype(np.float32) / 32768 if stored.dtype == np.int16 else stored

    def pictures(self, clip: int) -> np.ndarray:
        """(T, 88, 88, 3) uint8 RGB, the centre of one of the two clips."""
        if f"in/video{clip}_delta" in self.inputs:
            return np.cumsum(self.inputs[f"in/video{clip}_delta"].numpy(), axis=0, dtype=np.uint8)
        return self.inputs[f"in/video{clip}_u8"].numpy()[:, CROP, CROP]

    def video(self, clip: int) -> Tensor:
        """(T, 88, 88) float32, by the official formula: grey from float RGB, then normalised."""
        rgb = self.pictures(clip).astype(np.float32) / 255
        grey = sum(np.float32(weight) * rgb[..., i] for i, weight in enumerate(GREY))
        return torch.from_numpy((grey - np.float32(0.421)) / np.float32(0.165))

    def features(self, model: OmniAVSR, clip: int, modalities: tuple[str, ...], aligned: bool) -> Features:
        """What the encoders see of a clip.

        Args:
            model: its preprocessing contract counts.
            clip: 0 or 1.
            modalities: the streams that are there.
            aligned: cut or pad the audio to the video, as for AVSR and in training.
        """
        video = self.video(clip)
        mouths = np.zeros((len(video), 96, 96), np.uint8) if aligned else None
        heard = extract(self.wave(clip), mouths, model.config.preprocess) if "audio" in modalities else None
        if model.config.preprocess.bf16:
            video = video.bfloat16().float()
        return Features(
            mel=heard.mel if heard else None,
            audio_frames=heard.audio_frames if heard else 0,
            video=video if "video" in modalities else None,
            id=f"clip{clip}",
        )

    def batch(self, model: OmniAVSR, task: str) -> Batch:
        """Clip 0 as the official test loader gives it."""
        modalities = {"asr": ("audio",), "vsr": ("video",), "avsr": ("audio", "video")}[task]
        return collate([self.features(model, 0, modalities, aligned=task == "avsr")])

    def training_batch(self, model: OmniAVSR, rows: int) -> Batch:
        """Both clips, or the first, as the official training loader gives them."""
        clips = [self.features(model, clip, model.config.modalities, self._aligned(model)) for clip in range(rows)]
        return collate(clips, self.texts[:rows])

    def _aligned(self, model: OmniAVSR) -> bool:
        return "video" in model.config.modalities

    @property
    def texts(self) -> list[str]:
        """The transcripts of the two clips."""
        own = self.facts.get("meta", {}).get("texts")
        return own or json.loads((ROOT / f"{variants('omni-avsr')[0]}.json").read_text())["meta"]["texts"]

    # ---- outputs -------------------------------------------------------------------------

    def rate_keys(self, task: str, last: str = "greedy_ids") -> list[str]:
        """'a4', 'v2', 'a4v2' ... of an official task."""
        found = (re.fullmatch(rf"{task}/([av\d]+)/{last}", name) for name in self.arrays.names)
        return sorted({m[1] for m in found if m})

    def check(
        self,
        name: str,
        got: Tensor,
        *,
        relative: float = 0.0,
        absolute: float = 0.0,
        rows: tuple[int, int] | None = None,
    ) -> None:
        """Compares with the golden array of `name`, or with the tail of it that the subset keeps.

        Args:
            name: in the .npz; it must be there.
            got: ours.
            relative: largest difference, as a share of the largest absolute value.
            absolute: largest difference.
            rows: compare the first `end` positions of one row only: (row, end); the subset keeps the last of them.
        """
        cut = f"{name}{TAIL}" if rows is None else f"{name}#{rows[0]}{TAIL}"
        tail = cut in self.arrays
        want = self.arrays[cut if tail else name]
        largest = want.abs().max().item() if want.numel() else 0.0
        if rows is not None:
            got = got[rows[0], : rows[1]]
            want = want if tail else want[rows[0], : rows[1]]
        if tail:
            got = got[..., -want.shape[-2] :, :]
        assert tuple(got.shape) == tuple(want.shape), f"{name}: shape {tuple(got.shape)}, official {tuple(want.shape)}"
        limit = absolute + relative * largest
        error = (got.float() - want).abs().max().item() if want.numel() else 0.0
        assert error <= limit, f"{self.name} {name}: differs by {error:.2e}, allowed are {limit:.2e}"

    def has(self, name: str) -> bool:
        """Whether the array, or its tail, is there."""
        return name in self.arrays or f"{name}{TAIL}" in self.arrays


def rates(key: str) -> dict[str, int]:
    """'a4v2' -> {'audio': 4, 'video': 2}."""
    return {{"a": "audio", "v": "video"}[m]: int(rate) for m, rate in re.findall(r"([av])(\d+)", key)}
