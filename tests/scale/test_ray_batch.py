"""A corpus on a cluster: nothing lost, nothing doubled, whoever dies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("ray")

from omni_avsr.cli import app
from omni_avsr.scale.ray_batch import TRIES, Order, Scribe, transcribe_files
from omni_avsr.transcribe.cues import Lines
from omni_avsr.transcribe.transcriber import Request, Transcriber
from tests.clips import SAMPLE, grey, video, voice, wav
from tests.scale.conftest import kill, workers

pytestmark = pytest.mark.scale
GREEDY = Request(beam_size=1)


def order(folder: Path, model: Path) -> Order:
    return Order(GREEDY, folder, ("json",), Lines(), {"model": model, "device": "cpu", "offline": True})


def test_a_worker_killed_midway(cluster: None, corpus: Path, model_folder: Path, tmp_path: Path) -> None:
    files = [(path, path.stem) for path in sorted(corpus.iterdir())]
    killed: list[int] = []
    outcomes = []
    for outcome in transcribe_files(files, order(tmp_path, model_folder), actors=2):
        outcomes.append(outcome)
        if len(outcomes) == 3:
            killed = workers("Scribe")[:1]
            kill(killed[0])
    assert killed
    assert sorted(o.source for o in outcomes) == [path for path, _ in files]  # each once
    (failed,) = [o for o in outcomes if o.error]
    assert failed.source.name == "broken.wav"
    assert "broken.wav" in failed.error
    assert "MediaError" in failed.traceback
    written = sorted(path.name for path in tmp_path.iterdir())  # no half files, no notes
    assert written == [f"{stem}.json" for path, stem in files if stem != "broken"]
    alone = Transcriber(model_folder, device="cpu", offline=True)
    for path, stem in files[1:4]:
        segments, _ = alone.transcribe(path, beam_size=1)
        assert json.loads((tmp_path / f"{stem}.json").read_text())["text"] == " ".join(s.text for s in segments)


def test_by_command_and_again(cluster: None, corpus: Path, model_folder: Path, tmp_path: Path) -> None:
    arguments = ["transcribe", corpus, "--engine", "ray", "--model", model_folder, "--beam_size", 1, "-f", "txt"]
    command = [str(part) for part in (*arguments, "-o", tmp_path, "--device", "cpu", "--skip_existing", "--offline")]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 1
    assert first.stderr.count("failed:") == 1
    assert len(first.stdout.splitlines()) == len(list(tmp_path.glob("*.txt"))) == 20
    for name in ("clip03", "clip07"):
        (tmp_path / f"{name}.txt").unlink()
    second = CliRunner().invoke(app, command)
    assert sorted(Path(line).stem for line in second.stdout.splitlines()) == ["clip03", "clip07"]
    assert len(list(tmp_path.glob("*.txt"))) == 20


def test_both_engines_say_and_keep_the_same(
    cluster: None, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # all paths are relative, and a worker stands elsewhere
    Path("in").mkdir()
    for name in ("one", "two"):
        wav(Path("in") / f"{name}.wav", voice())
    video(Path("in/faceless.mkv"), grey(3), voice())
    whole = SAMPLE.read_bytes()
    Path("in/short.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    Path("in/empty.wav").touch()
    Path("model").symlink_to(model_folder)
    said, kept = {}, {}
    for engine in ("local", "ray"):
        options = {"--engine": engine, "--model": "model", "--save_crops": f"seen-{engine}", "-o": engine, "-f": "json"}
        typed = [part for option in options.items() for part in option]
        done = CliRunner().invoke(app, ["transcribe", "in", *typed, "--beam_size", "1", "--device", "cpu", "--offline"])
        assert done.exit_code == 1
        said[engine] = sorted(line for line in done.stderr.splitlines() if line.startswith(("failed:", "note:", "1 ")))
        seen = Path(f"seen-{engine}")
        kept[engine] = {path.relative_to(seen): path.stat().st_size for path in seen.rglob("*.mkv")}
    assert said["ray"] == said["local"]
    assert len(said["ray"]) == 4  # one failed, two notes, how many failed
    assert kept["ray"] == kept["local"]
    assert {path.parent.name for path in kept["ray"]} == {"one", "two", "faceless", "short"}


def test_a_file_on_which_workers_die_is_given_up(corpus: Path, model_folder: Path, tmp_path: Path) -> None:
    scribe = Scribe(order(tmp_path, model_folder))
    good, note = corpus / "clip00.wav", tmp_path / ".clip00.tries"
    note.write_text(str(TRIES - 1))
    assert scribe._attempt(good, "clip00").error == ""
    assert not note.exists()
    note.write_text(str(TRIES))
    assert "workers died" in scribe._attempt(good, "clip00").error
    assert not note.exists()  # the next run tries anew
