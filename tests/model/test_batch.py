from __future__ import annotations

import pytest
import torch

from omni_avsr.errors import InputError
from omni_avsr.model.batch import collate


def test_rows_keep_their_features_and_lengths(make_features):
    rows = [
        make_features(20, seed=1, name="a"),
        make_features(31, video=False, name="b"),
        make_features(13, audio=False),
    ]
    batch = collate(rows, ["x", "y", "z"])
    assert batch.mel.shape == (3, 80, 124)
    assert batch.video.shape == (3, 20, 88, 88)
    assert batch.audio_lengths.tolist() == [40, 62, 0]
    assert batch.video_lengths.tolist() == [20, 0, 13]
    assert (batch.texts, batch.ids) == (("x", "y", "z"), ("a", "b", "clip"))
    for i, row in enumerate(rows):
        for padded, own, length in ((batch.mel[i].T, row.mel, 4 * 31), (batch.video[i], row.video, 20)):
            own = torch.zeros(0) if own is None else own.T if own.dim() == 2 else own
            assert torch.equal(padded[: len(own)], own.reshape(len(own), *padded.shape[1:]))
            assert not padded[len(own) : length].any()
    assert batch.rows(["audio"]).tolist() == [0, 1]
    assert batch.rows(["audio", "video"]).tolist() == [0]


def test_a_stream_nobody_has_is_none(make_features):
    assert collate([make_features(video=False)]).video is None
    assert collate([make_features(audio=False)]).mel is None


def test_what_cannot_be_a_batch_is_refused(make_features):
    with pytest.raises(InputError, match="no rows"):
        collate([])
    with pytest.raises(InputError, match="1 transcripts for 2 clips"):
        collate([make_features(), make_features()], ["x"])
    with pytest.raises(InputError, match="'mute' has neither audio nor video"):
        collate([make_features(audio=False, video=False, name="mute")])
