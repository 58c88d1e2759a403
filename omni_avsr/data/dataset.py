"""Utterances of manifests as features and text: the same for the same (seed, epoch, index), in any worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from omni_avsr.config import AugmentConfig, ModelConfig
from omni_avsr.data.augment import augment as augmented
from omni_avsr.data.augment import load_noises
from omni_avsr.data.corpora import VIDEO
from omni_avsr.data.crossover import Crossover, Edges
from omni_avsr.data.intake import sound_of
from omni_avsr.data.manifest import Row, read_manifest
from omni_avsr.data.mouth_store import read_store, to_float, to_int16
from omni_avsr.data.noise import Rng, Utterances
from omni_avsr.data.normalize import normalize
from omni_avsr.data.shards import fetch
from omni_avsr.errors import DataError, InputError
from omni_avsr.media.features import extract
from omni_avsr.media.mouth import mouths
from omni_avsr.media.reader import open_media
from omni_avsr.types import FPS, Features, Sample

logger = logging.getLogger(__name__)

BOTH = ("audio", "video")
States = Callable[[int, int], torch.Tensor | None]  # (epoch, row) -> (N, D); None for a row without sound
VOICES = 512  # utterances that babble draws on; their sound is kept in memory


def load_sample(row: Row, modalities: Sequence[str] = BOTH) -> Sample:
    """The signals of a row: from its mouth file, or else from the media, where the mouth is then looked for.

    A stream that is not in `modalities`, or not in the file, is None.

    Raises:
        DataError: the mouth file is damaged.
        InputError: the media cannot be read.
    """
    listens, looks = ("audio" in modalities), ("video" in modalities)
    if row.mouths is not None or row.shard:
        stored = read_store(fetch(row) if row.mouths is None else row.mouths, video=looks, audio=listens)
        audio = None if stored.audio is None else to_float(stored.audio)
        return Sample(row.id, audio, stored.crops, row.text, row.speaker)
    audio = crops = None
    with open_media(row.media) as media:
        if listens:
            audio = sound_of(row, media)
        if looks and media.info.has_video:
            crops = mouths(media.frames(row.start, row.end)).crops
    return Sample(row.id, audio, crops if crops is not None and len(crops) else None, row.text, row.speaker)


class Voices:
    """The sound of up to 512 of `rows`, from which babble is mixed; kept in memory once heard."""

    def __init__(self, rows: Sequence[Row], seed: int = 0) -> None:
        chosen = np.random.default_rng((seed, 0)).permutation(len(rows))[:VOICES]
        self._rows = [rows[i] for i in chosen]
        self._kept: dict[str, np.ndarray | None] = {}

    def besides(self, row_id: str, speaker: str = "") -> Utterances:
        """Draws utterances other than `row_id`, of other speakers where there are any: what babble is made of.

        The speaker's own voice at the same loudness is nobody's babble: no ear could tell which of the two is meant.
        """
        others = [row for row in self._rows if row.id != row_id]
        strangers = [row for row in others if speaker and row.speaker not in ("", speaker)]

        def draw(count: int, rng: Rng) -> list[np.ndarray]:
            for rows in (strangers, others):
                chosen = rng.choice(len(rows), count, replace=count > len(rows)) if rows else ()
                heard = (self._sound(rows[i]) for i in chosen)
                if voices := [to_float(sound) for sound in heard if sound is not None]:
                    return voices
            return []

        return draw

    def _sound(self, row: Row) -> np.ndarray | None:
        """(S,) int16, or None for a row without sound, or one that cannot be used, which its own turn will tell."""
        if row.id not in self._kept:
            try:
                audio = load_sample(row, ("audio",)).audio
            except (InputError, DataError):
                audio = None
            self._kept[row.id] = None if audio is None else to_int16(audio)
        return self._kept[row.id]


class SpeechDataset(Dataset[tuple[Features, str]]):
    """Rows of one split, ready for `model.batch.collate`.

    Attributes:
        rows: those used, in the manifests' order.
        texts: their normalised transcripts.
        frames: their lengths at 25/s; sound alone counts as the video it would have.
    """

    def __init__(
        self,
        manifests: str | Path | Iterable[str | Path],
        split: str,
        config: ModelConfig,
        augment: AugmentConfig | None = None,
        seed: int = 0,
        cache_bytes: int = 1 << 30,
        edges: Edges | None = None,
    ) -> None:
        """Read the manifests.

        Args:
            split: rows of this split are used.
            config: the model's, for its preprocessing contract and the streams it perceives.
            augment: None = none, as for evaluation.
            seed: of the augmentation.
            cache_bytes: decoded signals kept in memory, over all loader workers; 0 = none.
            edges: finds where words part, for `augment.crossover`; None = nothing is crossed.

        Raises:
            DataError: a manifest is wrong, or has no usable rows of `split`.
            ConfigError: an unknown noise or normaliser.
        """
        named = [manifests] if isinstance(manifests, (str, Path)) else list(manifests)
        contract = config.preprocess
        found = [row for manifest in named for row in read_manifest(manifest)]
        pairs = [(row, normalize(row.text, contract.normalizer)) for row in found if row.split == split]
        self.rows = [_measured(row) for row, text in pairs if text.strip()]
        self.texts = [text for _, text in pairs if text.strip()]
        _complain(self.rows, pairs, found, split, named, config)
        self.frames = [row.frames for row in self.rows]
        self._modalities, self._contract, self._augment, self._seed = config.modalities, contract, augment, seed
        self._noises = load_noises(augment.noise) if augment and augment.noise_probability > 0 else []
        self._voices = Voices(self.rows, seed)
        self._cache: dict[int, tuple[np.ndarray | None, np.ndarray | None]] = {}
        self._cache_left = cache_bytes
        self._crossover = edges and Crossover([row.speaker for row in self.rows], self.texts, self._sample, edges)
        self._states: dict[str, States] = {}
        self._variants = 0
        self._seen = [i for i, row in enumerate(self.rows) if _shown(row)] if tuple(config.modalities) == BOTH else []
        # Shared memory: loader workers that outlive an epoch see the number change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        """Rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Features, str]:
        """Features and normalised transcript of row `index`.

        Raises:
            DataError: the row's files cannot be used; names it.
        """
        row, text = self.rows[index], self.texts[index]
        stranger = self._stranger(index)
        try:
            kept = {m: s for m, of in self._states.items() if (s := of(int(self._epoch), index)) is not None}
            if kept and len(kept) == len(self._modalities) and not self._crossover:
                features = self._features(kept, Sample(row.id, None, None), None, False)
                return replace(features, false_lips=stranger is not None), text
            sample, crop_at, flip = self._sample(index), None, False
            if self._augment is not None:
                epoch = int(self._epoch)
                rng = np.random.default_rng((self._seed, epoch, index))
                if self._crossover and rng.random() < self._augment.crossover:
                    sample = self._crossover(index, rng)
                    text = sample.text
                sample, stranger = self._lips_of(stranger, sample)
                sample, crop_at, flip = augmented(
                    sample,
                    self._augment.at(epoch),
                    rng,
                    [] if stranger is not None else self._noises,
                    self._voices.besides(row.id, row.speaker),
                    self._contract.crop,
                )
            features = replace(self._features(kept, sample, crop_at, flip), false_lips=stranger is not None)
        except InputError as error:
            raise DataError(f"row '{row.id}' cannot be used: {error}") from error
        return features, text

    def set_epoch(self, epoch: int) -> None:
        """From now on the augmentation of `epoch`, also in loader workers that are already running."""
        self._epoch.fill_(epoch % self._variants if self._variants else epoch)

    def use_states(self, states: Mapping[str, States], variants: int) -> None:
        """From now on rows carry states of the frozen encoders of these modalities instead of mel and picture, for
        epoch numbers modulo `variants`."""
        self._states, self._variants = dict(states), variants

    def _features(
        self, kept: dict[str, torch.Tensor], sample: Sample, crop_at: tuple[int, int] | None, flip: bool
    ) -> Features:
        """What the encoders still have to look at, beside the states that are `kept`."""
        audio = None if "audio" in kept else sample.audio
        crops = None if "video" in kept else sample.mouths
        features = Features(None, 0, None, sample.id)
        if not kept or audio is not None or crops is not None:
            features = extract(audio, crops, self._contract, crop_at=crop_at, flip=flip, id=sample.id)
        frames = len(kept["audio"]) if "audio" in kept else features.audio_frames
        return replace(features, audio_frames=frames, states=kept)

    def _stranger(self, index: int) -> int | None:
        """The row whose lips row `index` shows in this epoch; mostly None, its own. By chance of its own: cached states
        know nothing else."""
        if self._augment is None or not self._seen or not _shown(self.rows[index]):
            return None
        epoch = int(self._epoch)
        rng = np.random.default_rng((self._seed, epoch, index, 1))
        wanted = rng.random() < self._augment.at(epoch).false_lips
        return self._seen[int(rng.integers(len(self._seen)))] if wanted else None

    def _lips_of(self, row: int | None, sample: Sample) -> tuple[Sample, int | None]:
        """`sample` with the lips of `row`, as long as its own; unchanged, and None, where there is nothing to see."""
        lips = None if row is None or sample.mouths is None else self._sample(row).mouths
        if lips is None or sample.mouths is None or sample.audio is None:
            return sample, None
        return replace(sample, mouths=np.resize(lips, sample.mouths.shape)), row

    # ---- signals -------------------------------------------------------------------------------

    def _sample(self, index: int) -> Sample:
        """The row's signals as floats and crops; kept as int16 and uint8 while there is room."""
        row = self.rows[index]
        if index not in self._cache:
            sample = load_sample(row, self._modalities)
            sound = None if sample.audio is None else to_int16(sample.audio)
            size = sum(a.nbytes for a in (sound, sample.mouths) if a is not None)
            worker = get_worker_info()
            size *= worker.num_workers if worker else 1  # each worker keeps its own
            if size <= self._cache_left:
                self._cache_left -= size
                self._cache[index] = sound, sample.mouths
            # Through int16 whether kept or not: a full cache must not change a sample.
            return replace(sample, audio=None if sound is None else to_float(sound))
        sound, crops = self._cache[index]
        return Sample(row.id, None if sound is None else to_float(sound), crops, row.text, row.speaker)


def _shown(row: Row) -> bool:
    return row.mouths is not None or bool(row.shard) or row.media.suffix.lower() in VIDEO


def _measured(row: Row) -> Row:
    """The row with its length, read from the file where the manifest does not say."""
    if row.frames:
        return row
    try:
        with open_media(row.source) as media:
            seconds = media.info.duration
    except InputError as error:
        raise DataError(f"row '{row.id}' cannot be used: {error}") from error
    if row.mouths is None:  # a mouth file holds the row's stretch and nothing else
        seconds = min(seconds, seconds if row.end is None else row.end) - row.start
    return replace(row, frames=max(1, round(seconds * FPS)))


def _complain(
    rows: Sequence[Row],
    pairs: Sequence[tuple[Row, str]],
    found: Sequence[Row],
    split: str,
    named: Sequence[str | Path],
    config: ModelConfig,
) -> None:
    """Says what is left out or slow; nothing at all is an error."""
    manifests = ", ".join(f"'{name}'" for name in named) or "(no manifest given)"
    if not rows:
        have = ", ".join(sorted({row.split for row in found})) or "no rows at all"
        mute = f", {len(pairs)} of them without a transcript" if pairs else ""
        raise DataError(f"{manifests} have no usable rows of split '{split}'{mute}; they have: {have}")
    if len(rows) < len(pairs):
        logger.warning("%d row(s) of split '%s' have no transcript and are left out", len(pairs) - len(rows), split)
    uncut = sum(1 for row in rows if row.mouths is None and not row.shard and row.media.suffix.lower() in VIDEO)
    if uncut and "video" in config.modalities:
        logger.warning("%d row(s) have no mouth files, so faces are found again in every epoch: "
                       "omni-avsr prepare ... --mouths does it once", uncut)  # fmt: skip
