"""The same words in another voice: pitch and formants moved apart from each other, lengths as they were.

Changing the speed moves both together and stays one speaker who is in a hurry. A shorter vocal tract raises formants
(vocal tract length perturbation, Jaitly and Hinton, 2013) and says little of the pitch: here each is drawn by itself.
The lips still fit: nothing moves in time. Praat's overlap-add does it (parselmouth, GPLv3, of the extra `synthetic`,
loaded at run time only), in 13 ms for 3 s of sound.
"""

from __future__ import annotations

import math
import warnings

import numpy as np

from omni_avsr.errors import MissingExtraError
from omni_avsr.types import SAMPLE_RATE

FORMANTS = (0.8, 1.28)  # factor of the formants: from a child's voice to a man's, and back
PITCH = (80.0, 270.0)  # Hz, the new median
LIVELINESS = (0.6, 1.6)  # factor of the pitch's range
SEARCHED = (75.0, 500.0)  # Hz, where the present pitch is looked for
SHORTEST = SAMPLE_RATE // 10  # samples; less has no pitch that could be found


def revoice(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S,) float32 -> the same length in a voice that `rng` draws; where there is next to no voice, a copy.

    Raises:
        MissingExtraError: parselmouth is not installed.
    """
    try:
        import parselmouth
        from parselmouth.praat import call, run
    except ImportError as error:
        raise MissingExtraError("praat-parselmouth", "synthetic") from error
    formants, pitch, liveliness = (
        math.exp(rng.uniform(math.log(low), math.log(high))) for low, high in (FORMANTS, PITCH, LIVELINESS)
    )
    if len(audio) < SHORTEST:
        return audio.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", parselmouth.PraatWarning)  # no voiced segments: only the formants move
        # The overlap-add draws where periods begin in what has no voice; the generator is Praat's own, of the process.
        run(f"random_initializeWithSeedUnsafelyButPredictably ({rng.integers(1 << 31)})")
        sound = parselmouth.Sound(audio.astype(np.float64), SAMPLE_RATE)
        try:
            changed = call(sound, "Change gender", *SEARCHED, formants, pitch, liveliness, 1.0)
        except parselmouth.PraatError:  # too few voiced periods to lay out anew: one in some ten thousand samples
            return audio.copy()
    return changed.values[0].astype(np.float32)
