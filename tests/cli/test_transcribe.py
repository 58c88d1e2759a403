"""`omni-avsr transcribe`: whisper's habits, and one line for each file that fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from omni_avsr.media.mouth import Mouth
from omni_avsr.model.decode import DecodeOptions
from omni_avsr.types import Hypothesis
from tests.clips import grey, silence, video, voice, wav

Run = Callable[..., Result]
LINE = "[00:00.500 --> 00:02.900] bin blue at f two now\n"  # from the first word to the last

pytestmark = pytest.mark.usefixtures("says")


@pytest.fixture
def faceless(monkeypatch: pytest.MonkeyPatch) -> None:
    def stream(frames: Iterable[np.ndarray], **_: object) -> Iterator[Mouth]:
        return (Mouth(np.zeros((96, 96), np.uint8), False, np.zeros(4, np.float32)) for _ in frames)

    monkeypatch.setattr("omni_avsr.transcribe.transcriber.mouth_stream", stream)


def test_all_formats_beside_the_text_on_the_screen(run: Run, model_folder: Path, tmp_path: Path) -> None:
    wav(tmp_path / "clip.wav", voice())
    result = run("transcribe", "clip.wav", "--model", model_folder)
    assert (result.exit_code, result.stdout) == (0, LINE)
    assert sorted(p.name for p in tmp_path.glob("clip.*")) == [
        f"clip.{k}" for k in ("json", "srt", "tsv", "txt", "vtt", "wav")
    ]
    assert (tmp_path / "clip.txt").read_text() == "bin blue at f two now\n"
    assert json.loads((tmp_path / "clip.json").read_text())["segments"][0]["av"]["task"] == "asr"


def test_whispers_ways_of_typing(run: Run, model_folder: Path, tmp_path: Path) -> None:
    wav(tmp_path / "clip.wav", voice())
    result = run(
        "transcribe", "--model", model_folder, "clip.wav", "-f", "srt", "--output-dir", "subs", "--beam-size", 1,
        "--word_timestamps", "False", "--device", "cpu", "--task=asr", "--audio_rate", 16,
    )  # fmt: skip
    assert (result.exit_code, result.stderr) == (0, "")
    assert [p.name for p in (tmp_path / "subs").iterdir()] == ["clip.srt"]


def test_folders_globs_and_files_each_once(run: Run, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("in/a.wav", "in/deep/b.wav", "c.wav", "d.wav"):
        wav(tmp_path / name, voice())
    (tmp_path / "in" / "notes.txt").write_text("not media")
    result = run("transcribe", "in", "in/a.wav", "[cd].wav", "--model", model_folder, "-f", "txt", "-o", "out")
    assert result.exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.txt", "b.txt", "c.txt", "d.txt"]
    assert result.stdout == LINE * 4


def test_equal_stems_do_not_overwrite_each_other(run: Run, model_folder: Path, tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        wav(tmp_path / folder / "clip.wav", voice())
    assert run("transcribe", "x", "y", "--model", model_folder, "-f", "txt", "-o", "out").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["x_clip.wav.txt", "y_clip.wav.txt"]


def test_a_file_that_fails_is_one_line_and_the_rest_goes_on(run: Run, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not media at all " * 100)
    wav(tmp_path / "good.wav", voice())
    result = run("transcribe", "empty.mp4", "text.mp4", "gone.mp4", "good.wav", "--model", model_folder, "-f", "txt")
    assert result.exit_code == 1
    assert result.stdout == LINE
    lines = result.stderr.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("failed: empty.mp4:")
    assert "is empty (0 bytes)" in lines[0]
    assert lines[1].startswith("failed: text.mp4:")
    assert lines[2].startswith("failed: gone.mp4:")
    assert lines[3] == "3 of 4 files failed"
    assert (tmp_path / "good.txt").is_file()
    assert not (tmp_path / "empty.txt").exists()


def test_streams_that_are_missing(run: Run, model_folder: Path, tmp_path: Path, faceless: None) -> None:
    mute = video(tmp_path / "mute.mkv", grey(2))
    talk = video(tmp_path / "talk.mkv", grey(3), voice())
    sound = wav(tmp_path / "sound.wav", voice())
    for path, task, message in (
        (mute, "asr", "has no sound"),
        (sound, "vsr", "has no picture"),
        (talk, "vsr", "no face was found"),
    ):
        result = run("transcribe", path, "--task", task, "--model", model_folder, "-f", "txt")
        assert (result.exit_code, result.stdout) == (1, "")
        assert message in result.stderr
        assert "Traceback" not in result.stderr


def test_auto_without_a_face_warns_and_listens(run: Run, model_folder: Path, tmp_path: Path, faceless: None) -> None:
    video(tmp_path / "talk.mkv", grey(3), voice())
    result = run("transcribe", "talk.mkv", "--model", model_folder, "-f", "txt")
    assert (result.exit_code, result.stdout) == (0, LINE)
    assert "no face was found" in result.stderr


def test_silence_writes_files_without_words(run: Run, model_folder: Path, tmp_path: Path) -> None:
    wav(tmp_path / "quiet.wav", silence(3))
    result = run("transcribe", "quiet.wav", "--model", model_folder)
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "quiet.txt").read_text() == ""


def test_a_rate_that_was_not_trained_stops_before_the_first_file(run: Run, model_folder: Path, tmp_path: Path) -> None:
    wav(tmp_path / "clip.wav", voice())
    result = run("transcribe", "clip.wav", "--model", model_folder, "--audio_rate", 7)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: audio_rate = 7: this model was trained for 4, 16\n"


def test_lines_of_subtitles_as_whisper_types_them(run: Run, model_folder: Path, tmp_path: Path) -> None:
    wav(tmp_path / "clip.wav", voice())
    asked = ("--word_timestamps", "True", "--max_line_width", "12", "--max-line-count", "1")
    assert run("transcribe", "clip.wav", "--model", model_folder, "-f", "srt", *asked).exit_code == 0
    cues = [block.splitlines()[2] for block in (tmp_path / "clip.srt").read_text().split("\n\n") if block]
    assert cues == ["bin blue at", "f two now"]
    marked = run(
        "transcribe", "clip.wav", "--model", model_folder, "-f", "vtt", *asked[:2], "--highlight_words", "True"
    )
    assert marked.exit_code == 0
    assert "<u>bin</u> blue at f two now" in (tmp_path / "clip.vtt").read_text()


def test_hot_words_reach_the_search_as_transcripts_write_them(
    run: Run, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fake(model: object, batch: object, tasks: object, rates: object, options: DecodeOptions, *_: object) -> object:
        asked.append(options.hotwords)
        return [Hypothesis("now", (1,), (-0.1,), -0.1)]

    monkeypatch.setattr("omni_avsr.transcribe.recognition.decode", fake)
    wav(tmp_path / "clip.wav", voice())
    typed = ("--hotwords", "Zebra, F two!,")
    assert run("transcribe", "clip.wav", "--model", model_folder, "-f", "txt", *typed).exit_code == 0
    assert asked == [("zebra", "f two")]


@pytest.mark.parametrize("option", ["--max_line_width", "--max_line_count", "--max_words_per_line"])
def test_line_options_need_word_times(run: Run, option: str) -> None:
    result = run("transcribe", "clip.wav", option, 3)
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: {option} needs the times of words: add --word_timestamps True\n",
    )


def test_line_options_without_effect_are_said(run: Run, model_folder: Path, tmp_path: Path) -> None:
    wav(tmp_path / "clip.wav", voice())
    base = ("transcribe", "clip.wav", "--model", model_folder, "-f", "srt", "--word_timestamps")
    assert "has no effect without --max_line_width" in run(*base, "--max_line_count", 2).stderr
    beside = run(*base, "--max_line_count", 2, "--max_line_width", 9, "--max_words_per_line", 2)
    assert "--max_words_per_line has no effect" in beside.stderr


def test_existing_outputs_are_left_alone(run: Run, model_folder: Path, tmp_path: Path) -> None:
    wav(tmp_path / "old.wav", voice())
    wav(tmp_path / "new.wav", voice())
    (tmp_path / "old.txt").write_text("mine")
    result = run("transcribe", "old.wav", "new.wav", "--model", model_folder, "-f", "txt", "--skip_existing")
    assert result.stdout == LINE
    assert (tmp_path / "old.txt").read_text() == "mine"
    assert run("transcribe", "old.wav", "-f", "txt", "--skip-existing", "True").exit_code == 0  # no model is needed


def test_crops_are_kept_per_file(run: Run, model_folder: Path, tmp_path: Path) -> None:
    wav(tmp_path / "a.wav", voice())
    assert run("transcribe", "a.wav", "--model", model_folder, "-f", "txt", "--save_crops", "seen").exit_code == 0
    assert [p.name for p in (tmp_path / "seen" / "a").iterdir()] == ["00000000.mkv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-f", "str"], "did you mean 'srt'"),
        (["--task", "avs"], "did you mean 'avsr'"),
        (["--face", "biggest"], "face = 'biggest'"),
        (["--model", "nowhere/at/all"], "is not a model folder"),
        (["--device", "gpu"], "device 'gpu'"),
    ],
)
def test_options_that_cannot_be(
    run: Run, model_folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    wav(tmp_path / "clip.wav", voice())
    result = run("transcribe", "clip.wav", "--model", model_folder, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_option_that_does_not_exist_is_a_usage_error(run: Run) -> None:
    assert run("transcribe", "a.wav", "--temprature", 1).exit_code == 2
    assert run("transcribe", "a.wav", "--audio_rate", 0).exit_code == 2


def test_nothing_to_transcribe(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for text, message in (("empty", "holds no audio or video file"), ("*.mp4", "matches no file")):
        result = run("transcribe", text)
        assert result.exit_code == 1
        assert message in result.stderr


def test_a_damaged_model_is_refused(run: Run, model_folder: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(model_folder, tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    wav(tmp_path / "clip.wav", voice())
    result = run("transcribe", "clip.wav", "--model", damaged)
    assert result.exit_code == 1
    assert "cannot be read as safetensors" in result.stderr


def test_a_traceback_only_when_asked_for(
    run: Run, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.mp4").touch()
    quiet = run("transcribe", "empty.mp4", "--model", model_folder)
    loud = run("transcribe", "empty.mp4", "--model", model_folder, "--verbose")
    monkeypatch.setenv("OMNI_AVSR_DEBUG", "1")
    debug = run("transcribe", "empty.mp4", "--model", model_folder)
    assert ["Traceback" in r.stderr for r in (quiet, loud, debug)] == [False, True, True]


def test_ctrl_c_ends_with_130(run: Run, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("omni_avsr.transcribe.recognition.decode", interrupted)
    wav(tmp_path / "clip.wav", voice())
    result = run("transcribe", "clip.wav", "--model", model_folder)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
    assert not (tmp_path / "clip.txt").exists()


def test_a_full_disk_fails_the_file_and_says_why(
    run: Run, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    wav(tmp_path / "clip.wav", voice())
    monkeypatch.setattr(Path, "write_text", full)
    result = run("transcribe", "clip.wav", "--model", model_folder)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
