"""The numbers of the official Omni-AVSR code at the tolerances of its golden files: float32, token ids equal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from omni_avsr.checkpoints.keys import official_keys
from omni_avsr.checkpoints.layout import infer
from omni_avsr.checkpoints.official import read_official
from omni_avsr.checkpoints.systems import SYSTEMS
from omni_avsr.media.features import extract
from omni_avsr.media.mouth import _grey
from omni_avsr.model.avhubert import AVHubertEncoder
from omni_avsr.model.batch import collate
from omni_avsr.model.decode import DecodeOptions, decode
from omni_avsr.model.omni import OmniAVSR
from omni_avsr.tasks import TASKS
from omni_avsr.types import Losses
from tests.parity.goldens import OUR_TASK, Golden, rates, variants

# In a padded row, mostly constant pictures, the official float32 run itself is up to 2.2e-4 from its float64 value.
PADDED_LOGITS = 3e-4
PRODUCT_PICTURE = 0.0125  # half a step of 255 by the standard deviation, and OpenCV's weights have three decimals
PRODUCT_LOGITS = 0.03  # of the largest: random weights magnify what pictures differ by
STATES, LOGITS, LOSS, GRADIENT = 1e-5, 1e-4, 1e-5, 1e-4  # relative to the largest value; logits absolute
VARIANTS = pytest.mark.parametrize("name", variants("omni-avsr"))
TASK = pytest.mark.parametrize("task", ["audio", "video", "audiovisual"])
Get = Callable[[str], Golden]


@VARIANTS
@TASK
@torch.no_grad()
def test_from_signals_to_logits(name: str, task: str, golden: Get) -> None:
    case = golden(name)
    model = case.imported()
    batch = case.batch(model, OUR_TASK[task])
    if batch.mel is not None:
        assert batch.audio_lengths.tolist() == [case.facts["meta"][f"{task}/n_audio_frames"]]
        if case.has(f"{task}/mel"):
            case.check(f"{task}/mel", batch.mel[0], relative=STATES)
    if case.has(f"{task}/in_video"):  # a one-rate program has cut the clip already
        official = case.arrays[f"{task}/in_video"][:, 0]
        assert torch.equal(batch.video[0, : len(official)], official)
    encoded = model.encode(batch)
    for modality, states in encoded.items():
        case.check(f"{task}/enc_{modality}", _valid(states), relative=STATES)
    keys = case.rate_keys(task)
    assert keys
    for key in keys:
        tokens = model.project(encoded, rates(key)).tokens
        for modality in rates(key):
            case.check(f"{task}/{key}/proj_{modality}", _valid(tokens[modality]), relative=STATES)
        prefix = model.prefixes(OUR_TASK[task], tokens, [0])[0][None]
        case.check(f"{task}/{key}/embeds", prefix, relative=STATES)
        case.check(f"{task}/{key}/logits", _logits(model, task, prefix), absolute=LOGITS)


@VARIANTS
@TASK
@pytest.mark.parametrize(("ids", "beams"), [("greedy_ids", 1), ("beam4_ids", 4), ("beam15_ids", 15)])
def test_the_same_tokens(name: str, task: str, ids: str, beams: int, golden: Get) -> None:
    case = golden(name)
    model = case.imported()
    keys = case.rate_keys(task, ids)
    if not keys:
        pytest.skip(f"{name} has no {ids} for {task}")
    options = DecodeOptions(beam_size=beams, max_new_tokens=case.max_new_tokens)
    for key in keys:
        got = decode(model, case.batch(model, OUR_TASK[task]), OUR_TASK[task], rates(key), options)[0]
        want = case.arrays[f"{task}/{key}/{ids}"][0].tolist()
        assert list(got.tokens) == _text(want, model), f"{name} {task} {key} {ids}"
        scores = f"{task}/{key}/beam15_all_scores"
        if beams == 15 and case.has(scores):
            assert got.score == pytest.approx(case.arrays[scores][0].item(), abs=1e-4)


@VARIANTS
@pytest.mark.parametrize("task", ["video", "audiovisual"])
@torch.no_grad()
def test_pictures_as_the_product_sees_them(name: str, task: str, golden: Get) -> None:
    """Stored mouths are whole numbers of grey, the official code keeps fractions: a difference stated here."""
    case = golden(name)
    model = case.imported()
    grey = np.stack([_grey(picture) for picture in case.pictures(0)])
    mouths = np.pad(grey, ((0, 0), (4, 4), (4, 4)))  # the border is cut off again
    audio = case.wave(0) if task == "audiovisual" else None
    batch = collate([extract(audio, mouths, model.config.preprocess)])
    assert 0 < (batch.video[0] - case.video(0)).abs().max() <= PRODUCT_PICTURE
    key = case.rate_keys(task)[0]
    tokens = model.project(model.encode(batch), rates(key)).tokens
    prefix = model.prefixes(OUR_TASK[task], tokens, [0])[0][None]
    case.check(f"{task}/{key}/logits", _logits(model, task, prefix), relative=PRODUCT_LOGITS)


@VARIANTS
def test_rows_of_a_batch_say_what_they_say_alone(name: str, golden: Get) -> None:
    """Official decoding knows no batches; ours gives the official words in them, whatever quirks are in force."""
    case = golden(name)
    model = case.imported()
    key = case.rate_keys("audiovisual")[0]
    batch = case.training_batch(model, 2)
    options = DecodeOptions(beam_size=1, max_new_tokens=case.max_new_tokens)
    got = decode(model, batch, "avsr", rates(key), options)
    assert list(got[0].tokens) == _text(case.arrays[f"audiovisual/{key}/greedy_ids"][0].tolist(), model)


@VARIANTS
@pytest.mark.parametrize("rows", [2, 1])
@torch.no_grad()
def test_losses(name: str, rows: int, golden: Get) -> None:
    case = golden(name)
    model = case.imported()
    keys = sorted({n.split("/")[2] for n in case.arrays.names if n.startswith(f"train/b{rows}/")})
    assert keys
    for key in keys:
        _check_losses(case, f"train/b{rows}/{key}", _losses(case, model, rows, key))


@VARIANTS
@torch.no_grad()
def test_training_sequences(name: str, golden: Get) -> None:
    """Assembled embeddings, labels and logits of a training batch, up to the end of each text."""
    case = golden(name)
    model = case.imported()
    key = _first_key(case)
    batch = case.training_batch(model, 2)
    tokens = model.project(model.encode(batch, learning=True), rates(key)).tokens
    answers = model._answers(batch.texts)
    for task, ours in OUR_TASK.items():
        prefixes = model.prefixes(ours, tokens, [0, 1])
        read = model.sequences(prefixes, answers)
        where, start = f"train/b2/{key}/{task}", len(prefixes[0])
        width = read.labels.shape[1] - (start - 1)
        # ours are shifted by one already, and leave out the last token: nothing is read from it
        assert torch.equal(read.labels[:, start - 1 :], case.arrays[f"{where}/labels"][:, start : start + width])
        logits = _logits(model, task, read.inputs)
        for row, text in enumerate(batch.texts):
            end = start + len(model.tokenizer.encode(text))
            limit = PADDED_LOGITS if row else LOGITS
            case.check(f"{where}/embeds", read.inputs, rows=(row, end), relative=STATES)
            case.check(f"{where}/logits", logits, rows=(row, end), absolute=limit)


@VARIANTS
def test_gradients(name: str, golden: Get) -> None:
    case = golden(name)
    model = case.imported()
    model.set_trainable(["projectors", "llm_lora", "video_lora"])
    state, _ = read_official(case.checkpoint)
    layout = infer(state, SYSTEMS["omni-avsr"], case.flags(), name)
    _losses(case, model, 2, _first_key(case)).total.backward()
    wanted = {n.removeprefix("grad/") for n in case.arrays.names if n.startswith("grad/") and "/fwd/" not in n}
    seen = set()
    for ours, parameter in model.named_parameters():
        (key,) = official_keys(ours, layout)
        if parameter.grad is not None:
            assert key in wanted, f"{ours} has a gradient, official {key} has none"
            case.check(f"grad/{key}", parameter.grad, relative=GRADIENT)
            seen.add(key)
    assert seen == wanted


@VARIANTS
def test_losses_with_batch_statistics(name: str, golden: Get) -> None:
    """Official training normalises pictures by the statistics of the batch; so does ours when the ResNet is trained."""
    case = golden(name)
    if not case.has("trainmode_nodrop/total"):
        pytest.skip(f"{name} has no run in train mode")
    model = case.imported()
    still = {"dropout": 0.0, "layer_drop": 0.0}
    encoder = AVHubertEncoder(model.config.video_encoder.model_copy(update=still), fused=False)
    encoder.load_state_dict(model.encoder("video").state_dict())
    model.video_encoder = encoder.requires_grad_(True).train()
    _check_losses(case, "trainmode_nodrop", _losses(case, model, 2, _first_key(case)))


# ---- small things ----------------------------------------------------------------------------


def _valid(states: object) -> Tensor:
    return states.states[:, : int(states.lengths.max())]


def _logits(model: OmniAVSR, task: str, inputs: Tensor) -> Tensor:
    with model.adapters.use(OUR_TASK[task]):
        return model.llm(inputs_embeds=inputs, use_cache=False).logits


def _text(ids: list[int], model: OmniAVSR) -> list[int]:
    """The tokens before the end of text, where there is one."""
    return ids[: ids.index(model.tokenizer.eos_id)] if model.tokenizer.eos_id in ids else ids


def _first_key(case: Golden) -> str:
    """The rates of which the gradients are: the first of each."""
    audio, video = case.flags().audio_rates[0], case.flags().video_rates[0]
    return f"a{audio}v{video}"


def _losses(case: Golden, model: OmniAVSR, rows: int, key: str) -> Losses:
    weights = dict(zip(TASKS, case.facts["task_weights"], strict=True))
    return model(case.training_batch(model, rows), rates(key), task_weights=weights)


def _check_losses(case: Golden, where: str, got: Losses) -> None:
    for task, ours in OUR_TASK.items():
        case.check(f"{where}/{task}/loss", got.tasks[ours].detach(), relative=LOSS)
    case.check(f"{where}/total", got.total.detach(), relative=LOSS)
