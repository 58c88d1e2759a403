"""Every knob of a model and of its training, each with a sentence; recipes are TOML files of these fields.

A recipe names its base (`extends = "full"` or any other file beside it), and says only what differs.
`load_recipe("omni_st", tiny=True)` puts the same recipe on the base `tiny`: what a recipe is about does not
depend on its size.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from omni_avsr.errors import ConfigError, nearest
from omni_avsr.tasks import TASKS, Modality

Positive = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Part = Literal["projectors", "llm_lora", "task_lora", "video_lora", "llm", "audio_encoder", "video_encoder", "ctc"]


class Knobs(BaseModel):
    """Frozen fields; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


# ---- the model -------------------------------------------------------------------------------


class PreprocessConfig(Knobs):
    """The preprocessing contract: what a file becomes before the encoders. Stored with the weights."""

    sample_rate: Literal[16000] = 16000
    """Hz."""
    fps: Literal[25] = 25
    """Video frames per second."""
    n_mels: Positive = 80
    """Mel bands of Whisper's front end."""
    audio_window: NonNegative = 30.0
    """Seconds to which audio is zero-padded before Whisper, as Whisper was trained; 0 = its real length."""
    waveform_norm: bool = False
    """Zero mean, unit variance over the clip before the mel (the official code does this)."""
    length_arithmetic: Literal["exact", "float32", "bfloat16"] = "exact"
    """How the number of encoder frames is computed: by integers, or rounded in a float type as official runs do."""
    bf16: bool = False
    """Round waveform, picture and Whisper's Hann window to bfloat16, as official bf16 runs do."""
    min_audio_frames: int = Field(default=25, ge=1)
    """Shorter audio is padded to this many encoder frames (50/s), so that the largest rate leaves a token."""
    template: Literal["mediapipe-mesh-v1"] = "mediapipe-mesh-v1"
    """Which landmarks are laid on which points before the mouth is cut out."""
    crop: int = Field(default=88, ge=16, le=96)
    """Pixels kept of the 96 x 96 mouth crop: centre at inference, random place in training."""
    mean: float = 0.421
    """Grey mean, of values in 0..1."""
    std: float = Field(default=0.165, gt=0)
    """Grey standard deviation, of values in 0..1."""
    normalizer: str = "basic"
    """Text normaliser applied to transcripts before training and before scoring (row of data.normalize.NORMALIZERS)."""


class AudioEncoderConfig(Knobs):
    """The ear."""

    kind: Literal["whisper"] = "whisper"
    """Row of model.encoders.ENCODERS."""
    source: str = ""
    """Directory or hub id with pretrained weights; empty = random weights of `dims`."""
    dims: dict[str, Any] = {}
    """Fields of transformers' WhisperConfig, for an encoder without `source`."""


class VideoEncoderConfig(Knobs):
    """The eye: AV-HuBERT's video branch (Shi et al., 2022)."""

    kind: Literal["avhubert"] = "avhubert"
    """Row of model.encoders.ENCODERS."""
    source: str = ""
    """A fairseq .pt file or a safetensors file with pretrained weights; empty = random weights."""
    embed_dim: Positive = 1024
    layers: Positive = 24
    heads: Positive = 16
    ffn_dim: Positive = 4096
    resnet_widths: tuple[Positive, Positive, Positive, Positive] = (64, 128, 256, 512)
    """Channels of the four stages of the ResNet-18 trunk; the 3-D stem has those of the first."""
    relu: Literal["prelu", "relu"] = "prelu"
    """Activation of stem and trunk. PReLU is AV-HuBERT's; ReLU trains 1.9 times faster on a CPU."""
    downsample: Positive = 1
    """Average-pools the picture by this factor before the stem; 1 = as published."""
    pos_conv: Positive = 128
    """Taps of the convolutional position embedding."""
    pos_conv_groups: Positive = 16
    layer_norm_first: bool = True
    dropout: Probability = 0.1
    """Of attention, residual and input, in training."""
    layer_drop: Probability = 0.05
    lora_rank: int = Field(default=0, ge=0)
    """Rank of LoRA on Q and V; 0 = none. The official models use 64."""
    lora_scale: float = 2.0
    """Factor of the LoRA product (PEFT's lora_alpha / r)."""


class ProjectorConfig(Knobs):
    """From encoder width to LLM width: MLPs, or a sparse mixture of projectors (Llama-SMoP)."""

    kind: Literal["mlp_per_rate", "mlp_shared", "smop_dedr", "smop_jedr", "smop_jejr", "smop_pool"] = "mlp_per_rate"
    """Row of model.projectors.PROJECTORS."""
    hidden: Positive = 2048
    """Width between the two linear layers."""
    layer_norm: bool = True
    """LayerNorm after the second linear layer."""
    experts: Positive = 4
    """SMoP: experts per pool."""
    top_k: Positive = 2
    """SMoP: experts that each token visits."""
    balance_weight: NonNegative = 0.01
    """SMoP: factor of the load-balance loss (Switch form)."""
    router_z_weight: NonNegative = 0.001
    """SMoP: factor of the router z-loss."""

    @model_validator(mode="after")
    def _top_k_fits(self) -> ProjectorConfig:
        if self.top_k > self.experts:
            raise ValueError(f"top_k = {self.top_k} exceeds experts = {self.experts}; choose top_k <= experts")
        return self


class LLMConfig(Knobs):
    """The decoder: a causal language model of transformers."""

    family: Literal["llama", "qwen2"] = "llama"
    """Row of model.llm.LLM_FAMILIES."""
    source: str = ""
    """Directory or hub id with pretrained weights; empty = random weights of `dims`."""
    dims: dict[str, Any] = {}
    """Fields of the family's configuration, for an LLM without `source`."""
    tokenizer: str = ""
    """Directory or hub id; empty = that of `source`, or one trained on the transcripts when there is no source."""
    vocab_size: Positive = 512
    """Size of a tokenizer trained on the transcripts (byte-level BPE), added tokens not counted."""


class LoraConfig(Knobs):
    """Omni-LoRA on the LLM's Q and V projections (Omni-AVSR, section 3.2)."""

    strategy: Literal["none", "S", "T", "ST"] = "ST"
    """Row of model.lora.LORA: S one shared adapter, T one per task, ST both summed."""
    rank: Positive = 64
    """The true rank r."""
    scale: float = 0.125
    """Factor of the LoRA product (PEFT's lora_alpha / r)."""


class CtcConfig(Knobs):
    """A light CTC head on each encoder's states: an auxiliary loss, and the clock of word times."""

    units: Literal["none", "char", "token"] = "none"
    """What it spells: nothing, characters of the training text, or the LLM's tokens (small vocabularies)."""
    video_units: Literal["", "none", "char", "token"] = ""
    """What the video head spells; empty = as `units`. Lips show words of a small vocabulary sooner than letters."""
    weight: NonNegative = 0.3
    """Factor of the CTC loss, per modality."""
    decode_weight: float = Field(default=0.0, ge=0)
    """What a head's log-probability of a text counts in beam search, beside the LLM's (hybrid CTC/attention, Watanabe
    et al., 2017). 0 = the LLM decides alone."""

    def units_of(self, modality: str) -> str:
        """What the head of `modality` spells."""
        return self.video_units or self.units if modality == "video" else self.units


class CompatConfig(Knobs):
    """Quirks of the official code, set by the importer so that official weights give official numbers."""

    unmasked_padding: bool = False
    """Official: padding of a batch is encoded and attended like real frames. Ours: masked everywhere."""
    trim_to_longest: bool = False
    """Official: every row keeps as many audio frames as the longest of the batch. Ours: its own length."""
    trim_to_rate: bool = False
    """Official, one rate: frames beyond the last whole group of `video_rate` are cut off before the encoder sees them.
    Ours: the encoder sees all frames; what is left over is dropped after it."""
    no_layer_norm: tuple[Literal["audio", "video"], ...] = ()
    """Official: the MLPs of these modalities lack the LayerNorm, which was passed as the bias argument by mistake.
    Ours: `projector.layer_norm` holds for all."""
    plain_kernels: bool = False
    """Official: AV-HuBERT has a Conv3d stem in row-major memory and plain attention. Ours: the same sums by a folded
    stem, channels last, and fused attention, which are faster and round differently."""
    train_on_padding: bool = False
    """Official Qwen: the padding after the transcript is learned. Ours: ignored."""
    bf16_rotary: bool = False
    """Official bf16 runs: the LLM's rotary frequencies are rounded to bfloat16. Ours: float32, as in transformers."""


class ModelConfig(Knobs):
    """One audio-visual LLM."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Rows of tasks.TASKS that the model performs."""
    audio_rates: tuple[Positive, ...] = (4, 16)
    """Audio compression rates it is trained for: encoder frames (50/s) per token."""
    video_rates: tuple[Positive, ...] = (2, 5)
    """Video compression rates it is trained for: frames (25/s) per token."""
    compression: Literal["average", "stack"] = "average"
    """Row of model.compress.COMPRESSORS."""
    prompts: dict[str, str] = {}
    """Instruction per task; a task not named here uses that of tasks.TASKS."""
    audio_encoder: AudioEncoderConfig = AudioEncoderConfig()
    video_encoder: VideoEncoderConfig = VideoEncoderConfig()
    projector: ProjectorConfig = ProjectorConfig()
    llm: LLMConfig = LLMConfig()
    lora: LoraConfig = LoraConfig()
    ctc: CtcConfig = CtcConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    compat: CompatConfig = CompatConfig()

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        for task in (*self.tasks, *self.prompts):
            if task not in TASKS:
                raise ValueError(f"unknown task '{task}'; {nearest(task, TASKS)}")
        if not self.tasks:
            raise ValueError(f"no task given; choose from {', '.join(TASKS)}")
        for modality in self.modalities:
            rates = self.rates(modality)
            if not rates or len(set(rates)) != len(rates):
                raise ValueError(f"{modality}_rates = {list(rates)}: give at least one rate, each once")
        return self

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The streams that any of the tasks perceives, audio first."""
        used = {m for task in self.tasks for m in TASKS[task].modalities}
        return tuple(m for m in ("audio", "video") if m in used)

    def rates(self, modality: str) -> tuple[int, ...]:
        """The trained compression rates of `modality`."""
        return {"audio": self.audio_rates, "video": self.video_rates}[modality]

    def prompt(self, task: str) -> str:
        """The instruction of `task`."""
        return self.prompts.get(task, TASKS[task].prompt)


# ---- data and training -----------------------------------------------------------------------


class AugmentConfig(Knobs):
    """What is done to a sample in training."""

    random_crop: bool = True
    """Cut the 88 x 88 picture at a random place instead of the centre; one place per clip."""
    flip: Probability = 0.0
    """Probability of mirroring the mouth."""
    audio_time_masks: NonNegative = 1.0
    """Adaptive time masks per second of audio."""
    video_time_masks: NonNegative = 1.0
    """Adaptive time masks per second of video."""
    mask_seconds: NonNegative = 0.4
    """Longest time mask."""
    noise: tuple[str, ...] = ("babble", "white", "pink")
    """Rows of data.noise.NOISES, files and folders of recorded noise, or babble=FOLDER of single voices."""
    noise_probability: Probability = 0.8
    """Share of samples that get noise."""
    snr_db: tuple[float, float] = (-5.0, 20.0)
    """The signal-to-noise ratio is drawn uniformly between these."""
    crossover: Probability = 0.0
    """Share of samples that are joined, at the edges of words, from utterances of one speaker with as many words."""
    speed: tuple[float, float] = (1.0, 1.0)
    """Speed factor drawn uniformly; audio and video change together."""
    revoice: Probability = 0.0
    """Share of samples that are said in another voice: pitch and formants moved, lengths kept; extra `synthetic`."""
    warp: float = Field(default=0.0, ge=0, le=0.5)
    """Mouths are turned (radians), scaled and stretched by up to so much; one draw per clip."""
    video_corruption: Probability = 0.0
    """Share of samples whose video is blurred, occluded, frozen, darkened or blanked for a stretch."""
    false_lips: Probability = 0.0
    """Share of samples with video that show the lips of another utterance, to be ignored where both senses answer. Lips
    alone are then not asked, and no noise is added: nobody could tell which of the two is right."""
    audio_corruption: Probability = 0.0
    """Share of samples whose audio is filtered, reverberated, clipped or muted for a stretch."""
    ramp_epochs: int = Field(default=0, ge=0)
    """Masks, noise and corruption grow from none to all that is set above over so many epochs; 0 = at once."""

    def at(self, epoch: int) -> AugmentConfig:
        """The same with what it has grown to in `epoch`, counted from 0."""
        if epoch >= self.ramp_epochs:
            return self
        masks = ("audio_time_masks", "video_time_masks")
        grown = (*masks, "noise_probability", "false_lips", "video_corruption", "audio_corruption")
        return self.model_copy(update={name: getattr(self, name) * epoch / self.ramp_epochs for name in grown})


class DataConfig(Knobs):
    """Where samples come from."""

    train: tuple[str, ...] = ()
    """Manifests (JSON lines) of which the rows with split 'train' are used."""
    dev: tuple[str, ...] = ()
    """Manifests of which the rows with split 'dev' choose the best checkpoint."""
    frames_per_batch: Positive = 1500
    """Video frames (25/s) per batch and process, padding counted."""
    workers: int = Field(default=0, ge=0)
    """Loader processes; 0 = in the training process."""
    cache: str = ""
    """Folder where the states of frozen encoders are kept, computed once; empty = computed in every step."""
    variants: Positive = 1
    """Augmented versions of each utterance that `cache` keeps; epoch e trains on version e modulo this."""
    augment: AugmentConfig = AugmentConfig()


class TrainConfig(Knobs):
    """The optimisation."""

    parts: tuple[Part, ...] = ("projectors", "llm_lora", "video_lora")
    """What is trained; the rest is frozen."""
    task_weights: dict[str, float] = {}
    """Loss weight per task; a task not named here uses that of tasks.TASKS."""
    rates: Literal["sample", "all"] = "sample"
    """sample: one audio and one video rate per step (Omni-AVSR). all: the mean over all of them (Llama-MTSK)."""
    sink_weight: NonNegative = 0.0
    """Factor of the decorrelation loss of arXiv 2510.22603; 0 = off."""
    label_smoothing: Probability = 0.0
    epochs: Positive = 8
    ctc_epochs: int = Field(default=0, ge=0)
    """Of these, so many at the beginning train the CTC heads and what lies below them, without the LLM's passes: a
    fresh LLM learns little before the encoders hear and see, and its passes are half of a small model's step."""
    max_steps: int = Field(default=0, ge=0)
    """Optimiser steps after which training stops; 0 = after `epochs`."""
    lr: float = Field(default=1e-3, gt=0)
    fused: bool = False
    """AdamW in one kernel; a resumed run is then the same to rounding, not to the last bit."""
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: NonNegative = 0.1
    warmup: Probability = 0.05
    """Share of all steps with a linearly rising rate; then `schedule`."""
    schedule: Literal["cosine", "linear", "constant", "plateau"] = "cosine"
    """Row of train.optim.SCHEDULES: down to zero by half a cosine or a straight line; never; or in the last fifth."""
    clip: NonNegative = 10.0
    """Largest gradient norm; 0 = no clipping."""
    accumulate: Positive = 1
    """Batches per optimiser step."""
    precision: Literal["no", "bf16", "fp16"] = "bf16"
    """Accelerate's mixed precision."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """Row of train.parallel.PARALLEL: each process has the whole model, or its share of every weight."""
    average: Positive = 1
    """The final weights are the mean of this many best checkpoints."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of a running mean of the weights, which is then what is evaluated and kept; 0 = off."""
    pack: bool = False
    """Run the LLM once for all tasks, sequences laid end to end in its rows, instead of once per task."""
    checkpointing: bool = False
    """Keep only the inputs of transformer layers for the backward pass and compute the rest again: less memory."""
    keep: Positive = 2
    """Checkpoints kept for resuming."""
    save_every: Positive = 1
    """Epochs between checkpoints."""
    eval_every: Positive = 1
    """Epochs between evaluations on the dev split."""
    log_every: Positive = 10
    """Steps between rows of metrics.jsonl."""
    select_by: Literal["loss", "wer"] = "loss"
    """What the dev split measures to choose the best checkpoints: mean task loss, or mean greedy WER over tasks."""
    init: str = ""
    """Model folder whose weights to start from; empty = fresh."""
    fresh: tuple[Part, ...] = ()
    """Parts that are not taken from `init` but begin anew, and so may have another form than there."""
    seed: int = 0


class Recipe(Knobs):
    """All that is needed to train one model."""

    name: str
    description: str = ""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _ctc_epochs_have_heads(self) -> Recipe:
        if self.train.ctc_epochs and self.model.ctc.units == "none":
            raise ValueError(f"train.ctc_epochs = {self.train.ctc_epochs}, but model.ctc.units = 'none'; choose 'char'")
        return self


# ---- reading them ----------------------------------------------------------------------------

_K = TypeVar("_K", bound=Knobs)


def recipes() -> dict[str, Path]:
    """Name -> file of every recipe that comes with the project; bases are left out."""
    return {path.stem: path for path in sorted(_recipe_dir().glob("*.toml"))}


def load_recipe(recipe: str | Path, overrides: Sequence[str] = (), tiny: bool = False) -> Recipe:
    """Reads a recipe.

    Args:
        recipe: a file, or a name of `recipes()`.
        overrides: `dotted.key=value` strings, the value written as in TOML (a bare word is a string).
        tiny: put the recipe on the base `tiny` instead of the one it names.

    Raises:
        ConfigError: no such recipe, not TOML, an unknown key, or a value a knob cannot have.
    """
    path = Path(recipe)
    if not path.is_file():
        known = recipes()
        if str(recipe) not in known:
            raise ConfigError(f"no recipe '{recipe}': neither a file nor a name; {nearest(str(recipe), known)}")
        path = known[str(recipe)]
    tree = _with_base(path, "tiny" if tiny else None)
    if tiny and isinstance(tree.get("train"), dict):
        tree["train"].pop("init", None)  # a folder of another size
    for override in overrides:
        _set(tree, override)
    tree.setdefault("name", path.stem)
    return parse(Recipe, tree, where=str(recipe))


def parse(kind: type[_K], tree: Mapping[str, Any], where: str) -> _K:
    """`tree` as a `kind`; ConfigError names the knob, the value and what is allowed."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(kind, e, where) for e in error.errors())) from None


def _recipe_dir() -> Path:
    packaged = Path(str(resources.files("omni_avsr"))) / "recipes"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "recipes"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _with_base(path: Path, base: str | None, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path in above:
        raise ConfigError(f"{path} and {above[-1]} extend each other; one of them must stand alone")
    tree = _read_toml(path)
    named = tree.pop("extends", None)
    base = base or named
    if base is None:
        return tree
    for folder in (path.parent, _recipe_dir()):
        for candidate in (folder / "bases" / f"{base}.toml", folder / f"{base}.toml"):
            if candidate.is_file() and candidate != path:
                return merge(_with_base(candidate, None, (*above, path)), tree)
    raise ConfigError(f"{path}: no base '{base}' beside it; write extends = \"full\" or the name of a file there")


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `top` laid over it, group by group."""
    out = dict(base)
    for key, value in top.items():
        out[key] = merge(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def _set(tree: dict[str, Any], override: str) -> None:
    key, sep, text = override.partition("=")
    if not sep:
        raise ConfigError(f"--set {override}: expected dotted.key=value, for example train.lr=1e-3")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *parents, leaf = key.strip().split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: '{name}' is a value, not a group of knobs")
    tree[leaf] = value


def _explain(kind: type[BaseModel], error: Any, where: str) -> str:
    path = [str(p) for p in error["loc"]]
    name = ".".join(path) or kind.__name__
    if error["type"] == "extra_forbidden":
        owner: Any = kind
        for part in path[:-1]:
            owner = owner.model_fields[part].annotation
        return f"{where}: unknown key '{name}'; {nearest(path[-1], owner.model_fields)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    value = error["input"]
    got = "" if isinstance(value, (dict, BaseModel)) else f" (got {value!r})"
    return f"{where}: {name}: {message}{got}"
