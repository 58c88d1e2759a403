"""espeak-ng through ctypes: marked-up text in, sound and events out.

The library (GPLv3) comes with the extra `synthetic` and is loaded at run time only.
"""

from __future__ import annotations

import _ctypes
import ctypes
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from omni_avsr.errors import ConfigError, MissingExtraError, nearest

_SYNCHRONOUS, _PHONEME_EVENTS, _IPA, _DONT_EXIT = 2, 1, 2, 0x8000
_UTF8, _SSML, _PHONEMES = 1, 0x10, 0x100
_EVENT_WORD, _EVENT_PHONEME = 1, 7
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7  # espeak_PARAMETER
_LOCK = threading.Lock()


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


class _VoiceRecord(ctypes.Structure):  # the head of espeak_VOICE
    _fields_ = [("name", ctypes.c_char_p), ("languages", ctypes.c_void_p), ("identifier", ctypes.c_char_p)]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Event:
    """A word or a phoneme begins."""

    time: float  # seconds
    position: int  # character of the input at which the word begins, counted from 1
    phoneme: str | None = None  # IPA, cut at 8 bytes, '' for a pause; None where a word begins


def speak(
    markup: str, voice: str, rate: float, pitch: float, pitch_range: float, word_gap: float
) -> tuple[np.ndarray, int, list[Event]]:
    """Speak SSML in which [[...]] encloses phonemes -> (S,) float32 sound, its rate in Hz, events in the order of time.

    espeak-ng keeps its state in the process and carries noise and flutter from one utterance to the next. So the
    library is opened afresh for each: 5 ms, and the result depends on nothing before, here or in a forked worker.

    Args:
        markup: SSML without the outer element.
        voice: 'accent' or 'accent+timbre'.
        rate: words a minute.
        pitch: 0 to 99.
        pitch_range: 0 to 99.
        word_gap: seconds.

    Raises:
        ConfigError: there is no such voice.
        MissingExtraError: espeakng-loader is not installed.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise MissingExtraError("espeakng_loader", "synthetic") from error
    settings = {
        _RATE: rate,
        _VOLUME: 60,  # of 100; several timbres clip above
        _PITCH: pitch,
        _RANGE: pitch_range,
        _WORD_GAP: 100 * word_gap,
    }
    with _LOCK:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            data = str(espeakng_loader.get_data_path()).encode()
            hertz = library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS | _IPA | _DONT_EXIT)
            _set_voice(library, voice)
            for parameter, value in settings.items():
                library.espeak_SetParameter(parameter, round(value), 0)
            sound, events = _speak(library, markup.encode())
            return sound, hertz, events
        finally:
            library.espeak_Terminate()
            _ctypes.dlclose(library._handle)


def _set_voice(library: Any, voice: str) -> None:
    if library.espeak_SetVoiceByName(voice.encode()) == 0:
        return
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_VoiceRecord))
    voices, known, i = library.espeak_ListVoices(None), [], 0
    while voices[i]:
        known.append(ctypes.string_at(voices[i].contents.languages + 1).decode())  # a priority byte precedes the name
        i += 1
    similar = [name for name in known if name[:2] == voice[:2]] or known
    raise ConfigError(f"espeak-ng has no voice '{voice}'; {nearest(voice.split('+')[0], similar)}.")


def _speak(library: Any, text: bytes) -> tuple[np.ndarray, list[Event]]:
    blocks: list[np.ndarray] = []
    events: list[Event] = []

    @_Callback
    def receive(wave: Any, count: int, batch: Any) -> int:
        if wave and count > 0:
            blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        i = 0
        while batch[i].type:
            event = batch[i]
            time, position = event.audio_position / 1000, event.text_position
            if event.type == _EVENT_WORD:
                events.append(Event(time, position))
            elif event.type == _EVENT_PHONEME:
                name = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0")[0]
                events.append(Event(time, position, name.decode("utf8", "ignore")))
            i += 1
        return 0

    library.espeak_SetSynthCallback(receive)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    library.espeak_Synth(text, len(text) + 1, 0, 0, 0, _UTF8 | _SSML | _PHONEMES, None, None)
    library.espeak_Synchronize()
    sound = np.concatenate(blocks).astype(np.float32) / 32768 if blocks else np.zeros(0, np.float32)
    return sound, events
