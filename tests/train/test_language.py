"""Nothing knows English: a tiny model learns another language in another script from synthetic voices."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_avsr.config import load_recipe
from omni_avsr.data.prepare import prepare
from omni_avsr.data.synthetic import make_corpus
from omni_avsr.train import loop
from omni_avsr.transcribe.transcriber import Transcriber

SENTENCES = ("Добрый вечер", "Какая сегодня погода", "Спасибо вам большое")


@pytest.mark.slow
def test_russian_voices_are_learned_and_written_in_cyrillic(tmp_path: Path) -> None:
    make_corpus(tmp_path / "made", sentences=SENTENCES, utterances=6, speakers=1, seed=4, video=False, language="ru",
                voices=["ru"], splits={"train": 1.0})  # fmt: skip
    manifest = (
        prepare("folder", tmp_path / "made" / "manifest.csv", tmp_path / "data", workers=0)
        if False
        else (tmp_path / "made" / "manifest.jsonl")
    )
    knobs = (
        "model.tasks=['asr']", "model.audio_rates=[4]", "model.prompts.asr='Запиши речь.'", "model.ctc.units='char'",
        "train.parts=['projectors','llm_lora','llm','audio_encoder','ctc']", f"data.train=['{manifest}']",
        "data.augment.noise_probability=0", "data.augment.audio_time_masks=0", "data.frames_per_batch=600",
        "train.epochs=250", "train.save_every=250", "train.eval_every=250", "train.lr=5e-3", "train.warmup=0.1",
        "train.log_every=50", "model.llm.vocab_size=400",
    )  # fmt: skip
    model = loop.train(load_recipe("omni_s", knobs, tiny=True), tmp_path / "run", progress=False)
    transcriber = Transcriber(model)
    assert transcriber.model.config.prompt("asr") == "Запиши речь."
    right = 0
    for clip in sorted((tmp_path / "made" / "media").rglob("*.flac")):
        segments, _ = transcriber.transcribe(clip, task="asr", beam_size=1)
        text = " ".join(s.text for s in segments)
        right += text in {s.lower() for s in SENTENCES}
    assert right >= 4
