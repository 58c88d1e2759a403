"""Where somebody speaks: voice activity by Silero VAD over streaming blocks, and windows that a model can take."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omni_avsr.errors import AssetError, ConfigError
from omni_avsr.types import SAMPLE_RATE, Speech

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CHUNK = 512  # samples per decision, 32 ms; the network takes no other length at 16 kHz
CONTEXT = 64  # samples before the chunk that the network sees again
CALM = 5  # chunks over which loudness of speech is averaged to find the best place for a forced cut


@dataclass(frozen=True)
class SpeechOptions:
    """When sound counts as speech. Times in seconds."""

    threshold: float = 0.5
    """Probability from which speech begins; it ends 0.15 lower, so that it does not flicker."""
    min_speech: float = 0.25
    """Shorter stretches are dropped."""
    min_silence: float = 0.5
    """Shorter pauses stay inside a stretch."""
    pad: float = 0.2
    """Added on both sides: lips move before the voice is heard."""

    def __post_init__(self) -> None:
        if not 0.15 < self.threshold < 1:
            raise ConfigError(f"threshold = {self.threshold}; expected a probability between 0.15 and 1.")
        if self.min_speech < 0 or self.min_silence <= 0 or not 0 <= self.pad <= self.min_silence / 2:
            raise ConfigError(
                f"min_speech = {self.min_speech}, min_silence = {self.min_silence}, pad = {self.pad}; expected "
                "min_speech >= 0, min_silence > 0 and pad between 0 and min_silence / 2, so that stretches stay apart."
            )


def speech_spans(audio: np.ndarray | Iterable[np.ndarray], options: SpeechOptions | None = None) -> list[Speech]:
    """All stretches of speech, in order and apart; none in silence.

    Args:
        audio: (S,) float32, 16 kHz, or blocks of it.
        options: when sound counts as speech.
    """
    return list(_spans(_blocks(audio), options or SpeechOptions(), longest=None))


def windows(
    audio: np.ndarray | Iterable[np.ndarray],
    max_seconds: float = 30.0,
    *,
    join: float = 1.0,
    options: SpeechOptions | None = None,
) -> Iterator[Speech]:
    """Stretches of at most `max_seconds` that hold all speech, cut at silences; as they are heard.

    Speech without a pause for longer is cut where it is calmest in the window's second half.

    Args:
        audio: (S,) float32, 16 kHz, or blocks of it; long audio is never held in memory.
        max_seconds: what the model takes at once; at least 1.
        join: seconds of silence up to which neighbouring stretches share a window.
        options: when sound counts as speech.

    Raises:
        ConfigError: `max_seconds` is below 1.
    """
    if max_seconds < 1:
        raise ConfigError(f"max_seconds = {max_seconds}; expected at least 1.")
    return _packed(_spans(_blocks(audio), options or SpeechOptions(), max_seconds), max_seconds, join)


def _spans(blocks: Iterator[np.ndarray], options: SpeechOptions, longest: float | None) -> Iterator[Speech]:
    """Stretches of voice as they end; none longer than `longest` seconds, none beyond the last sample."""
    heard = 0

    def probabilities() -> Iterator[float]:
        nonlocal heard
        for samples, probability in _probabilities(blocks):
            heard += samples
            yield probability

    for span in stretches(probabilities(), SAMPLE_RATE / CHUNK, options, longest):
        yield Speech(span.start, min(span.end, heard / SAMPLE_RATE))


def _packed(spans: Iterator[Speech], longest: float, join: float) -> Iterator[Speech]:
    window: Speech | None = None
    for span in spans:
        if window is None:
            window = span
        elif span.start - window.end <= join and span.end - window.start <= longest:
            window = Speech(window.start, span.end)
        else:
            yield window
            window = span
    if window is not None:
        yield window


# ---- from probabilities to stretches -----------------------------------------------------------


@dataclass
class _Stretch:
    """Speech that is going on. Positions count probabilities."""

    begin: int
    cut: bool = False  # it begins where the one before was cut, not in silence
    quiet: int | None = None  # where the present pause began
    probabilities: list[float] = field(default_factory=list)  # since `begin`


def stretches(
    probabilities: Iterable[float], rate: float, options: SpeechOptions, longest: float | None = None
) -> Iterator[Speech]:
    """Speech as it ends, in seconds from the first probability; whatever told them, a voice or lips.

    Args:
        probabilities: of speech, 0 to 1.
        rate: how many there are a second.
        options: what counts as speech.
        longest: seconds, padding included, after which speech without a pause is cut where it is calmest: such
            stretches touch.
    """
    pause = max(1, round(options.min_silence * rate))
    limit = None if longest is None else int((longest - 2 * options.pad) * rate)
    speech: _Stretch | None = None
    position = 0
    for probability in probabilities:
        if speech is None and probability >= options.threshold:
            speech = _Stretch(position)
        if speech is not None:
            speech.probabilities.append(probability)
            if probability >= options.threshold:
                speech.quiet = None
            elif probability < options.threshold - 0.15 and speech.quiet is None:
                speech.quiet = position
            if speech.quiet is not None and position + 1 - speech.quiet >= pause:
                yield from _finished(speech, speech.quiet, rate, options)
                speech = None
            elif limit is not None and len(speech.probabilities) >= limit:
                middle = speech.begin + _calmest(speech.probabilities)
                yield from _finished(speech, middle, rate, options, cut=True)
                speech = _after(speech, middle)
        position += 1
    if speech is not None:
        for last in _finished(speech, position if speech.quiet is None else speech.quiet, rate, options):
            yield Speech(last.start, min(last.end, position / rate))


def _finished(speech: _Stretch, end: int, rate: float, options: SpeechOptions, cut: bool = False) -> Iterator[Speech]:
    """The stretch in seconds, padded where it borders on silence; nothing if it is too short."""
    start, stop = speech.begin / rate, end / rate
    if stop - start < options.min_speech and not (cut or speech.cut):
        return
    stop = stop if cut else stop + options.pad
    start = start if speech.cut else max(0.0, start - options.pad)
    if stop > start:
        yield Speech(start, stop)


def _calmest(probabilities: list[float]) -> int:
    """Where in the second half speech is least likely."""
    smooth = np.convolve(probabilities, np.ones(CALM) / CALM, "same")
    half = len(smooth) // 2
    room = smooth[half : len(smooth) - CALM // 2]  # the average at the very end lacks neighbours
    return half + int(room.argmin()) if len(room) else half


def _after(speech: _Stretch, middle: int) -> _Stretch:
    """What is left of a stretch that was cut."""
    quiet = None if speech.quiet is None else max(speech.quiet, middle)
    return _Stretch(middle, True, quiet, speech.probabilities[middle - speech.begin :])


# ---- the network -------------------------------------------------------------------------------


def _blocks(audio: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    return iter((audio,)) if isinstance(audio, np.ndarray) else iter(audio)


def _chunks(blocks: Iterator[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """(valid samples, (512,) float32), the last one zero-padded."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, np.asarray(block, np.float32)])
        whole = len(rest) - len(rest) % CHUNK
        yield from ((CHUNK, chunk) for chunk in rest[:whole].reshape(-1, CHUNK))
        rest = rest[whole:]
    if len(rest):
        yield len(rest), np.pad(rest, (0, CHUNK - len(rest)))


def _probabilities(blocks: Iterator[np.ndarray]) -> Iterator[tuple[int, float]]:
    """(valid samples, probability of speech) of every chunk."""
    network = _network()
    rate = np.array(SAMPLE_RATE, np.int64)
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT, np.float32)
    for samples, chunk in _chunks(blocks):
        seen = np.concatenate([context, chunk])[None]
        probability, state = network.run(None, {"input": seen, "state": state, "sr": rate})
        context = chunk[-CONTEXT:]
        yield samples, float(probability[0, 0])


@lru_cache(maxsize=1)
def _network() -> InferenceSession:
    import onnxruntime  # here, since importing it costs a quarter of a second

    # The weights lie in silero-vad's wheel; importing that package would pull in more than they need.
    spec = importlib.util.find_spec("silero_vad")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        weights = Path(root, "data", "silero_vad.onnx")
        if weights.is_file():
            options = onnxruntime.SessionOptions()
            options.inter_op_num_threads = options.intra_op_num_threads = 1
            options.log_severity_level = 3  # it warns of unused constants in the file
            return onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
    raise AssetError(
        "Finding speech needs silero-vad's weights, not found; install them: pip install 'silero-vad>=6.2.3'"
    )
