"""The grid: what is asked, how often, and that noise is exactly what it says."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omni_avsr.checkpoints import save_model
from omni_avsr.config import ModelConfig
from omni_avsr.data.manifest import Row, write_manifest
from omni_avsr.data.mouth_store import write_store
from omni_avsr.errors import ConfigError, DataError, RateError
from omni_avsr.evaluate import measure
from omni_avsr.evaluate.grid import evaluate
from omni_avsr.evaluate.measure import Condition, Grid, Options, System, conditions, systems
from omni_avsr.model.omni import OmniAVSR, build_model
from omni_avsr.types import Batch, Hypothesis, Sample
from tests.clips import silence, voice, wav

TEXTS = ("bin blue at f two now", "place red by z nine soon")
ROW_KEYS = {
    "task", "audio_rate", "video_rate", "snr_db", "noise", "wer", "cer", "substitutions", "deletions", "insertions",
    "words", "utterances", "wer_ci95",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_config: Callable[..., ModelConfig]) -> OmniAVSR:
    torch.manual_seed(0)
    return build_model(tiny_config(), TEXTS).eval()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rows with both streams and one to listen to."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    rows = []
    for i, frames in enumerate((20, 30, 25)):
        crops = rng.integers(0, 255, (frames, 96, 96)).astype(np.uint8)
        sound = voice()[8000 * i : 8000 * i + 640 * frames]
        store = write_store(folder / f"{i}.mkv", crops, sound)
        rows.append(Row(f"u{i}", store, TEXTS[i % 2], "dev", f"s{i}", mouths=store, frames=frames))
    rows.append(Row("deaf", wav(folder / "deaf.wav", voice()[:16_000]), "bin Blue!", "test", frames=25))
    return write_manifest(folder / "manifest.jsonl", rows)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Batch, str, dict[str, int]]]:
    """What is decoded; every answer is the same four words."""
    calls: list[tuple[Batch, str, dict[str, int]]] = []

    def fake(
        model: OmniAVSR, batch: Batch, task: str, rates: dict[str, int], *_: object, **__: object
    ) -> list[Hypothesis]:
        calls.append((batch, task, dict(rates)))
        return [Hypothesis("Bin blue at f.", (), (), -0.5)] * len(batch)

    monkeypatch.setattr(measure, "decode", fake)
    return calls


# ---- what is asked ---------------------------------------------------------------------------


def test_clean_is_measured_once_and_every_level_with_every_noise() -> None:
    found = conditions([None, 5.0, -5.0], ["babble", "white"])
    assert found == [Condition(), *(Condition(s, n) for n in ("babble", "white") for s in (5.0, -5.0))]


def test_every_task_at_every_combination_of_its_rates(model: OmniAVSR) -> None:
    found = systems(model, Options())
    assert [s for s in found if s.task == "asr"] == [System("asr", 4, None), System("asr", 16, None)]
    assert [s for s in found if s.task == "vsr"] == [System("vsr", None, 2), System("vsr", None, 5)]
    assert len([s for s in found if s.task == "avsr"]) == 4
    assert systems(model, Options(tasks=["avsr"], audio_rates=[16], video_rates=[2])) == [System("avsr", 16, 2)]


def test_results_have_the_contracts_keys(model: OmniAVSR, manifest: Path, heard: list[object], tmp_path: Path) -> None:
    options = Options(snrs=[None, 0.0], noises=["white"], seed=3)
    evaluate(manifest, model, tmp_path, options, command="omni-avsr evaluate x")
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"rows", "meta"}
    assert all(set(row) == ROW_KEYS for row in results["rows"])
    assert len(results["rows"]) == (2 + 2 + 4) * 2
    wanted = {"model", "origin", "config", "seed", "machine", "versions", "commit", "date", "command"}
    assert wanted <= set(results["meta"])
    assert results["meta"]["seed"] == 3
    row = next(r for r in results["rows"] if r["task"] == "avsr")
    # the references have 6 words; 'bin blue at f' lacks 2 of the first text, and shares nothing with the second
    assert (row["words"], row["utterances"], row["deletions"]) == (18, 3, 6)
    assert row["wer"] == pytest.approx((row["substitutions"] + row["deletions"] + row["insertions"]) / 18)
    assert row["wer_ci95"][0] <= row["wer"] <= row["wer_ci95"][1]
    lines = [json.loads(line) for line in (tmp_path / "utterances.jsonl").read_text().splitlines()]
    assert len(lines) == 16 * 3 + 4  # the row without a picture is heard at two rates, in two conditions
    assert {line["hypothesis"] for line in lines} == {"bin blue at f"}
    assert {(line["id"], line["speaker"]) for line in lines} == {("u0", "s0"), ("u1", "s1"), ("u2", "s2"), ("deaf", "")}
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "results.json", "utterances.jsonl"]


def test_words_are_counted_as_the_official_code_does_on_request(
    model: OmniAVSR, manifest: Path, heard: list[object], tmp_path: Path
) -> None:
    """Its normaliser only lowers the letters: 'f.' is another word than 'f', and 'Blue!' than 'blue'."""
    options = Options(tasks=["asr"], audio_rates=[16], split="test")
    wrong = {}
    for name in ("", "official"):
        results = evaluate(manifest, model, tmp_path, replace(options, normalizer=name))
        wrong[results["meta"]["normalizer"]] = results["rows"][0]["substitutions"]
    assert wrong == {"basic": 0, "official": 1}


def test_lips_are_read_once_since_no_noise_can_change_them(
    model: OmniAVSR, manifest: Path, heard: list[tuple[Batch, str, dict[str, int]]], tmp_path: Path
) -> None:
    options = Options(tasks=["vsr"], video_rates=[2], snrs=[None, 0.0, -5.0], noises=["white"], split="dev")
    rows = evaluate(manifest, model, tmp_path, options)["rows"]
    assert [task for _, task, _ in heard] == ["vsr"]
    assert [row["snr_db"] for row in rows] == [None, 0.0, -5.0]
    assert len({row["wer"] for row in rows}) == 1


def test_sound_is_encoded_once_per_condition_and_lips_once(
    model: OmniAVSR, manifest: Path, heard: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = model.encode

    def counting(batch: Batch, modalities: Sequence[str]) -> object:
        encoded.extend(modalities)
        return encode(batch, modalities)

    monkeypatch.setattr(model, "encode", counting)
    evaluate(manifest, model, tmp_path, Options(snrs=[None, 0.0, -5.0], noises=["white"], split="dev"))
    assert (encoded.count("audio"), encoded.count("video")) == (3, 1)


def test_two_runs_are_the_same_to_the_last_digit(model: OmniAVSR, manifest: Path, tmp_path: Path) -> None:
    options = Options(tasks=["asr"], audio_rates=[16], snrs=[0.0], noises=["babble"], beam_size=1, seed=1)
    runs = []
    for name, batch_size in (("a", 16), ("b", 1)):
        sized = Options(**{**vars(options), "batch_size": batch_size})
        runs.append(evaluate(manifest, model, tmp_path / name, sized)["rows"])
    assert runs[0] == runs[1]


def test_a_killed_run_asks_only_for_what_is_missing(
    model: OmniAVSR, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(model: OmniAVSR, batch: Batch, *_: object) -> list[Hypothesis]:
        """As many words as what is heard or seen says, so that other noise has other answers."""
        signal = batch.video if batch.mel is None else batch.mel
        assert signal is not None
        return [Hypothesis(" ".join(TEXTS[0].split()[: int(s.abs().sum() * 100) % 7]), (), (), -0.5) for s in signal]

    monkeypatch.setattr(measure, "decode", fake)
    options = Options(snrs=[None, 0.0], noises=["white"], beam_size=1, batch_size=1)
    whole = evaluate(manifest, model, tmp_path / "whole", options)["rows"]
    loaded: list[str] = []
    load = measure.load_sample

    def dying(row: Row) -> Sample:
        loaded.append(row.id)
        if len(loaded) == 3:
            raise KeyboardInterrupt
        return load(row)

    monkeypatch.setattr(measure, "load_sample", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(manifest, model, tmp_path / "killed", options)
    assert evaluate(manifest, model, tmp_path / "killed", options)["rows"] == whole
    assert len(loaded) == 3 + 2  # of four utterances, two were done

    monkeypatch.setattr(measure, "load_sample", load)
    other = replace(options, seed=1)  # what was written down for one seed is not taken for another's
    killed = evaluate(manifest, model, tmp_path / "killed", other)["rows"]
    assert killed == evaluate(manifest, model, tmp_path / "other", other)["rows"] != whole


def test_a_row_that_cannot_be_read_is_left_out_and_asked_for_again_when_it_is_mended(
    model: OmniAVSR, tmp_path: Path, heard: list[tuple[Batch, str, dict[str, int]]], caplog: pytest.LogCaptureFixture
) -> None:
    whole, cut = wav(tmp_path / "whole.wav", voice()), tmp_path / "cut.wav"
    cut.write_bytes(b"no media" * 100)
    rows = [Row(path.stem, path, TEXTS[0], "dev", frames=75) for path in (whole, cut)]
    options = Options(tasks=["asr"], audio_rates=[16], snrs=[None, 0.0], noises=["white"])

    def run() -> dict[str, Any]:
        return evaluate(write_manifest(tmp_path / "m.jsonl", rows), model, tmp_path / "out", options)

    first = run()
    assert list(first["meta"]["left_out"]) == ["cut"]
    assert "row 'cut' is left out" in caplog.text
    assert "lack sound" not in caplog.text
    assert [row["utterances"] for row in first["rows"]] == [1, 1]

    heard.clear()
    wav(cut, voice())
    second = run()
    assert second["meta"]["left_out"] == {}
    assert [row["utterances"] for row in second["rows"]] == [2, 2]
    assert [batch.ids for batch, _, _ in heard] == [("cut",), ("cut",)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.html", "results.json", "utterances.jsonl"]


def test_answers_to_other_signals_are_not_taken_for_those_of_a_row(model: OmniAVSR, tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", voice())
    row = Row("a", path, TEXTS[0], "dev")
    keys = [
        measure._key("weights", row, TEXTS[0]),
        measure._key("others", row, TEXTS[0]),
        measure._key("weights", row, TEXTS[1]),
        measure._key("weights", replace(row, start=0.5), TEXTS[0]),
    ]
    os.utime(path, ns=(1, 1))
    assert len({*keys, measure._key("weights", row, TEXTS[0])}) == 5


# ---- noise -----------------------------------------------------------------------------------


def grid(model: OmniAVSR, manifest: Path, noises: Sequence[str] = ("white",), seed: int = 0) -> Grid:
    from omni_avsr.data.manifest import read_manifest

    rows = [(row, row.text) for row in read_manifest(manifest)]
    return Grid(model, rows, Options(snrs=[0.0], noises=noises, seed=seed))


@pytest.mark.parametrize("noise", ["white", "pink", "babble"])
@pytest.mark.parametrize("snr", [10.0, 0.0, -5.0])
def test_the_level_is_what_it_says(model: OmniAVSR, manifest: Path, noise: str, snr: float) -> None:
    clean = Sample("u0", voice(), None)
    mixed = grid(model, manifest, [noise]).mixed(clean, Condition(snr, noise))
    added = mixed.audio - clean.audio  # type: ignore[operator]
    assert 10 * np.log10(np.square(voice()).sum() / np.square(added).sum()) == pytest.approx(snr, abs=0.01)


def test_levels_differ_in_loudness_alone_and_utterances_in_their_noise(model: OmniAVSR, manifest: Path) -> None:
    g = grid(model, manifest)

    def added(name: str, snr: float, of: Grid = g) -> np.ndarray:
        sample = Sample(name, voice(), None)
        noise = of.mixed(sample, Condition(snr, "white")).audio - voice()  # type: ignore[operator]
        return noise / np.abs(noise).max()

    assert np.allclose(added("u0", 10.0), added("u0", -5.0), atol=1e-3)
    assert not np.allclose(added("u0", 0.0), added("u1", 0.0), atol=0.1)
    assert not np.allclose(added("u0", 0.0), added("u0", 0.0, grid(model, manifest, seed=1)), atol=0.1)


def test_recordings_are_the_same_noise_wherever_they_lie_and_are_recorded(
    model: OmniAVSR, manifest: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for folder in ("here", "elsewhere"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        wav(tmp_path / "here" / f"{name}.wav", rng.uniform(-0.5, 0.5, 60_000).astype(np.float32))
        shutil.copy(tmp_path / "here" / f"{name}.wav", tmp_path / "elsewhere")
    places = [str(tmp_path / folder) for folder in ("here", "elsewhere")]
    g = grid(model, manifest, ["white", *places])
    sample = Sample("u0", voice(), None)
    white, here, elsewhere = (g.mixed(sample, Condition(0.0, name)).audio for name in ("white", *places))
    assert np.array_equal(here, elsewhere)
    assert not np.array_equal(here, white)
    assert [(n["name"], n.get("files")) for n in g.recorded()] == [("white", None), (places[0], 2), (places[1], 2)]
    assert grid(model, manifest, ["babble"]).recorded() == [{"name": "babble", "utterances": 4, "speakers": 4}]
    known = {n["sha256"] for n in g.recorded() if "sha256" in n}
    assert len(known) == 1
    wav(tmp_path / "here" / "a.wav", voice())
    assert grid(model, manifest, places).recorded()[0]["sha256"] not in known


def test_silence_in_a_recording_is_no_noise(model: OmniAVSR, manifest: Path, tmp_path: Path) -> None:
    """Mixed in, it would leave the sound clean under the name of a level."""
    mostly = wav(tmp_path / "mostly.wav", np.concatenate([silence(9), voice()]))
    mute = wav(tmp_path / "mute.wav", silence(9))
    g = grid(model, manifest, [str(mostly), str(mute)])
    for name in "abcdefgh":
        sample = Sample(name, voice()[:8000], None)
        added = g.mixed(sample, Condition(0.0, str(mostly))).audio - sample.audio  # type: ignore[operator]
        assert np.square(added).sum() == pytest.approx(np.square(voice()[:8000]).sum(), rel=1e-3)
    with pytest.raises(DataError, match=r"mute.wav' is silent"):
        g.mixed(sample, Condition(0.0, str(mute)))


def test_clean_is_clean(model: OmniAVSR, manifest: Path) -> None:
    sample = Sample("u0", voice(), None)
    assert grid(model, manifest).mixed(sample, Condition()) is sample


# ---- bad input -------------------------------------------------------------------------------


def test_a_task_without_any_row_is_left_out(
    model: OmniAVSR, manifest: Path, heard: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = evaluate(manifest, model, tmp_path, Options(split="test"))["rows"]
    assert {row["task"] for row in rows} == {"asr"}
    assert "vsr: 1 row(s) lack sound, picture or face" in caplog.text


def test_where_no_face_was_found_nothing_is_read_from_lips(
    model: OmniAVSR, tmp_path: Path, heard: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    crops = np.zeros((20, 96, 96), np.uint8), np.full((20, 96, 96), 99, np.uint8)
    stores = [write_store(tmp_path / f"{i}.mkv", c, voice()[:12_800]) for i, c in enumerate(crops)]
    rows = [Row(store.stem, store, TEXTS[0], "dev", mouths=store, frames=20) for store in stores]
    options = Options(audio_rates=[16], video_rates=[5])
    found = evaluate(write_manifest(tmp_path / "m.jsonl", rows), model, tmp_path / "out", options)["rows"]
    assert {row["task"]: row["utterances"] for row in found} == {"asr": 2, "vsr": 1, "avsr": 1}
    assert "avsr: 1 row(s) lack sound, picture or face" in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (Options(audio_rates=[7]), RateError, "audio_rate = 7.*4, 16"),
        (Options(tasks=["asrr"]), ConfigError, "did you mean 'asr'"),
        (Options(snrs=[0.0], noises=["brabble"]), ConfigError, "no noise 'brabble'"),
        (Options(split="train"), DataError, "split 'train'; splits: dev, test"),
        (Options(tasks=["vsr"], split="test"), DataError, "no row of the manifest has the streams that vsr needs"),
        (Options(snrs=[0.0], noises=["babble"], split="test"), ConfigError, "babble"),
        (Options(snrs=[float("nan")]), ConfigError, "snr nan: expected a number"),
    ],
)
def test_refusals(
    model: OmniAVSR,
    manifest: Path,
    heard: list[object],
    tmp_path: Path,
    options: Options,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        evaluate(manifest, model, tmp_path, options)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named_with_its_row(model: OmniAVSR, tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"id": "a", "media": "gone.mp4", "text": "bin", "split": "dev"}\n')
    with pytest.raises(DataError, match=r"row 1.*gone\.mp4"):
        evaluate(path, model, tmp_path / "out")


def test_a_file_that_is_no_media_is_named(model: OmniAVSR, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no media" * 100)
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"id": "a", "media": "bad.mp4", "text": "bin", "split": "dev"}\n')
    with pytest.raises(DataError, match=r"no row of the manifest can be used.*bad\.mp4"):
        evaluate(path, model, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"bad\.mp4' is a file"):
        evaluate(path, model, tmp_path / "bad.mp4")


def test_a_folder_gives_its_origin(model: OmniAVSR, tmp_path: Path, heard: list[object]) -> None:
    folder = save_model(model, tmp_path / "model", origin={"made_by": "a test"})
    rows = [Row(n, wav(tmp_path / f"{n}.wav", silence(1)), "bin", "dev") for n in "ab"]
    results = evaluate(write_manifest(tmp_path / "m.jsonl", rows), folder, tmp_path / "out", Options(tasks=["asr"]))
    assert results["meta"]["origin"]["made_by"] == "a test"
    assert results["meta"]["config"]["audio_rates"] == [4, 16]
