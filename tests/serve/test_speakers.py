"""Who says what, as `diarized_json` tells it: a letter for each who is seen, a word for all who are not."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
from openai.types.audio import TranscriptionDiarized, TranscriptionTextSegmentEvent

from omni_avsr.data.dialogue import film, write_script
from omni_avsr.media.assets import ensure_face_models
from omni_avsr.serve.answers import UNSEEN, diarized, letter
from omni_avsr.types import Segment
from tests.clips import video
from tests.media.test_sync import LINES
from tests.serve.conftest import Server
from tests.transcribe.test_speakers import black, people

TURNS = list(zip((1, 0, None, 1), LINES, strict=True))


@pytest.fixture
def panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two faces of which one speaks, then the other, then nobody who is seen, then the first again."""
    script = write_script(TURNS, 2, seed=42)
    crowd = "omni_avsr.transcribe.transcriber.all_mouths"
    monkeypatch.setattr(crowd, lambda *_, **__: iter(people(script, (7, 9))))
    monkeypatch.setattr("omni_avsr.media.quality.sharpness", lambda crop: 0.2)
    return video(tmp_path / "panel.mkv", black(script), script.audio)


def test_letters_by_the_format_alone(server: Server, panel: Path) -> None:
    create = server.sdk().audio.transcriptions.create
    answer = create(model="default", file=panel, response_format="diarized_json")
    assert isinstance(answer, TranscriptionDiarized)
    assert [segment.speaker for segment in answer.segments] == ["A", "B", UNSEEN, "A"]
    events = list(create(model="default", file=panel, response_format="diarized_json", stream=True))
    told = [event for event in events if isinstance(event, TranscriptionTextSegmentEvent)]
    assert [(e.id, e.speaker, e.text) for e in told] == [(s.id, s.speaker, s.text) for s in answer.segments]


def test_a_face_that_is_named_wins_and_other_formats_follow_one(server: Server, panel: Path, faces: None) -> None:
    create = server.sdk().audio.transcriptions.create
    largest = create(
        model="default", file=panel, response_format="diarized_json", extra_body={"face": "largest"}
    ).segments
    assert {segment.speaker for segment in largest} == {UNSEEN}
    verbose = create(model="default", file=panel, response_format="verbose_json").segments
    assert all("speaker" not in segment.model_extra for segment in verbose)
    both = create(model="default", file=panel, response_format="verbose_json", extra_body={"face": "all"}).segments
    assert {segment.model_extra.get("speaker") for segment in both} == {"SPEAKER_00", "SPEAKER_01", None}


def test_nobody_shares_a_letter() -> None:
    assert [letter(n) for n in (0, 25, 26, 53)] == ["A", "Z", "A2", "B3"]
    known: dict[str, str] = {}
    rows = [diarized(Segment(n, 0.0, 1.0, "so", speaker=f"SPEAKER_{n:02d}"), known) for n in range(60)]
    assert len({row["speaker"] for row in rows}) == 60
    assert diarized(Segment(0, 0.0, 1.0, "so"), known)["speaker"] == UNSEEN
    assert diarized(Segment(0, 0.0, 1.0, "so", speaker="SPEAKER_01"), known)["speaker"] == "B"


@pytest.mark.slow
def test_two_heads_on_film(server: Server, tmp_path: Path) -> None:
    ensure_face_models(offline=True)
    script = write_script([(1, LINES[0]), (0, LINES[3])], 2, seed=23)
    path = video(tmp_path / "talk.mkv", film(script, seed=4)[0].frames, script.audio)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=300)
    answer = client.audio.transcriptions.create(model="default", file=path, response_format="diarized_json")
    first, second = (segment for segment in answer.segments if segment.speaker != UNSEEN)
    assert (first.speaker, second.speaker) == ("A", "B")
    middles = [(line.start + line.end) / 2 for line in script.lines]
    assert first.start < middles[0] < first.end <= second.start < middles[1] < second.end
