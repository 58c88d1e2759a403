"""Text normalisers, by name: what transcripts and hypotheses become before training and before scoring."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache

from omni_avsr.errors import ConfigError, MissingExtraError, nearest

Normalizer = Callable[[str], str]

APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ`´＇", "'"))


def normalize(text: str, name: str) -> str:
    """`text` under the normaliser `name` of `NORMALIZERS`.

    Raises:
        ConfigError: no such normaliser.
        MissingExtraError: it needs a package that is not installed.
    """
    if name not in NORMALIZERS:
        raise ConfigError(f"unknown normaliser '{name}'; {nearest(name, NORMALIZERS)}")
    return NORMALIZERS[name](text)


def none(text: str) -> str:
    """The text as it is."""
    return text


def official(text: str) -> str:
    """Lower case and single spaces: how the official code counts words."""
    return " ".join(text.lower().split())


def basic(text: str) -> str:
    """Lower case, punctuation to space, apostrophes inside words kept, single spaces; any script.

    "Don't stop -- it's 5 o'clock!" becomes "don't stop it's 5 o'clock".
    """
    lowered = unicodedata.normalize("NFKC", text).lower().translate(APOSTROPHES)
    # By category and not by \w, which would tear vowel signs (Mc, Mn) out of Indic words.
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in lowered)
    words = (re.sub(r"'{2,}", " ", word).strip("' ") for word in kept.split())
    return " ".join(" ".join(words).split())


def whisper_english(text: str) -> str:
    """Whisper's English normaliser: spelling, contractions, numbers, fillers (package whisper-normalizer)."""
    return _whisper()(text)


@cache
def _whisper() -> Normalizer:
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError:
        raise MissingExtraError("whisper-normalizer", "text") from None
    return EnglishTextNormalizer()


NORMALIZERS: dict[str, Normalizer] = {f.__name__: f for f in (none, official, basic, whisper_english)}
