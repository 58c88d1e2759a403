"""espeak-ng through ctypes: words in, sound and phonemes out.

The library (GPLv3) comes with the extra `synthetic` and is loaded at run time only.
"""

from __future__ import annotations

import _ctypes
import ctypes
import threading
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from omni_avsr.data.spoken import Event, Manner, SpokenWord
from omni_avsr.errors import ConfigError, MissingExtraError, nearest

_SYNCHRONOUS, _PHONEME_EVENTS, _IPA, _DONT_EXIT = 2, 1, 2, 0x8000
_UTF8, _SSML = 1, 0x10
_EVENT_WORD, _EVENT_PHONEME = 1, 7
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7  # espeak_PARAMETER
_LOCK = threading.Lock()
_CLOSURE = 0.055  # seconds; a voiceless stop is reported at its burst, its silence lies before
_VOICELESS_STOPS = frozenset("ptkcqʈʔ")
_Found = tuple[float, int, str | None]  # seconds, character of the input, phoneme or None where a word begins


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


def speak(words: Sequence[SpokenWord], manner: Manner) -> tuple[np.ndarray, int, list[Event]]:
    """Speak `words` -> (S,) float32 sound, its rate in Hz, events in the order of time.

    espeak-ng keeps its state in the process and carries noise and flutter from one utterance to the next. So the
    library is opened afresh for each: 5 ms, and the result depends on nothing before, here or in a forked worker.

    Raises:
        ConfigError: there is no such voice.
        MissingExtraError: espeakng-loader is not installed.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise MissingExtraError("espeakng_loader", "synthetic") from error
    settings = {
        _RATE: manner.rate,
        _VOLUME: 60,  # of 100; several timbres clip above
        _PITCH: manner.pitch,
        _RANGE: manner.pitch_range,
        _WORD_GAP: 100 * manner.word_gap,
    }
    markup, starts = _markup(words)
    with _LOCK:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            data = str(espeakng_loader.get_data_path()).encode()
            hertz = library.espeak_Initialize(_SYNCHRONOUS, 0, data, _PHONEME_EVENTS | _IPA | _DONT_EXIT)
            _set_voice(library, manner.voice)
            for parameter, value in settings.items():
                library.espeak_SetParameter(parameter, round(value), 0)
            sound, found = _speak(library, markup.encode())
            return sound, hertz, _events(found, starts)
        finally:
            library.espeak_Terminate()
            _ctypes.dlclose(library._handle)


def _markup(words: Sequence[SpokenWord]) -> tuple[str, list[int]]:
    """SSML with a rate and pitch for each word, and the character at which each word begins, counted from 1."""
    text, starts = "", []
    for word in words:
        plain = word.rate == word.pitch == 1
        tag = f'<prosody rate="{100 * word.rate:.0f}%" pitch="{100 * (word.pitch - 1):+.0f}%">'
        text += "" if plain else tag
        starts.append(len(text) + 1)
        text += escape(word.spelling) + (" " if plain else "</prosody> ")
    return text, starts


def _events(found: Sequence[_Found], starts: Sequence[int]) -> list[Event]:
    """Phonemes with the word they belong to; voiceless stops begin with their closure."""
    events: list[Event] = []
    word = 0
    for time, position, name in found:
        if name is None:
            word = max(word, int(np.searchsorted(starts, position, "right")) - 1)
        elif not name.startswith("("):  # '(en)' tells of a change of language, not of a sound
            if name[:1] in _VOICELESS_STOPS:
                floor = (events[-1].time + time) / 2 if events else 0.0
                time = max(floor, time - _CLOSURE)
            events.append(Event(time, word, name))
    return events


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


def _speak(library: Any, text: bytes) -> tuple[np.ndarray, list[_Found]]:
    blocks: list[np.ndarray] = []
    events: list[_Found] = []

    @_Callback
    def receive(wave: Any, count: int, batch: Any) -> int:
        if wave and count > 0:
            blocks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        i = 0
        while batch[i].type:
            event = batch[i]
            time, position = event.audio_position / 1000, event.text_position
            if event.type == _EVENT_WORD:
                events.append((time, position, None))
            elif event.type == _EVENT_PHONEME:
                name = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0")[0]
                events.append((time, position, name.decode("utf8", "ignore")))
            i += 1
        return 0

    library.espeak_SetSynthCallback(receive)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    library.espeak_Synth(text, len(text) + 1, 0, 0, 0, _UTF8 | _SSML, None, None)
    library.espeak_Synchronize()
    sound = np.concatenate(blocks).astype(np.float32) / 32768 if blocks else np.zeros(0, np.float32)
    return sound, events
