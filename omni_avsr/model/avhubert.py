"""AV-HuBERT's video branch (Shi et al., 2022, masked multimodal cluster prediction, section 3) with LoRA.

mouth pictures -> 3-D stem -> ResNet-18 -> Linear -> fusion with an absent audio half -> positions -> Transformer.

Module and parameter names are those of the published checkpoints, so that importing is a selection of keys.
Frames travel packed, (sum of lengths, ...), up to the Transformer: padding costs nothing and never enters the
statistics of batch normalisation.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omni_avsr.config import VideoEncoderConfig
from omni_avsr.errors import ConfigError, InputError
from omni_avsr.model.encoder import Encoder, key_mask, valid_mask
from omni_avsr.types import FPS, Encoded

AVHUBERT_SIZES: dict[str, dict[str, int]] = {
    "base": {"embed_dim": 768, "layers": 12, "heads": 12, "ffn_dim": 3072},
    "large": {"embed_dim": 1024, "layers": 24, "heads": 16, "ffn_dim": 4096},
}
"""Fields of VideoEncoderConfig for the published sizes; the ResNet is the same in both."""

STEM_FRAMES = 5  # taps in time of the 3-D stem
CHUNK = 64  # frames per pass through the ResNet unless batch statistics are made: bounds memory, stays in cache
MIN_SIDE = 32  # pixels; the ResNet divides the picture by 32


@dataclass(frozen=True)
class _Activation:
    make: Callable[[int], nn.Module]  # channels -> module
    monotone: bool  # commutes with the maximum; a learned slope may turn negative


_ACTIVATIONS = {
    "prelu": _Activation(nn.PReLU, monotone=False),
    "relu": _Activation(lambda channels: nn.ReLU(inplace=True), monotone=True),
}


# ---- ResNet ----------------------------------------------------------------------------------


class BatchNorm(nn.BatchNorm2d):
    """Batch statistics while its weights are trained; frozen weights keep frozen statistics in train mode too."""

    @property
    def uses_batch(self) -> bool:
        """Whether the next forward normalises by (and updates) the statistics of the batch."""
        return self.training and self.weight.requires_grad

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, h, w) -> the same."""
        if self.uses_batch:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class StemConv(nn.Module):
    """The stem's Conv3d (5 x 7 x 7, stride 1 x 2 x 2, no bias).

    Folded, the five frames are the channels of a Conv2d: the same sums, and on a CPU in bfloat16 about twice as fast,
    forward and backward.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fused = True
        self.weight = nn.Parameter(torch.empty(channels, 1, STEM_FRAMES, 7, 7))
        nn.init.kaiming_normal_(self.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """(n, 5, height, width) frames t-2..t+2 -> (n, C, height/2, width/2)."""
        if self.fused:
            return F.conv2d(x, self.weight[:, 0], stride=2, padding=3)
        x = x.contiguous()[:, None]  # (n, 1, 5, height, width)
        return F.conv3d(x, self.weight, stride=(1, 2, 2), padding=(0, 3, 3))[:, :, 0]


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int, relu: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm(width)
        self.relu1 = _ACTIVATIONS[relu].make(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm(width)
        self.relu2 = _ACTIVATIONS[relu].make(width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.downsample = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), BatchNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        """(n, C_in, h, w) -> (n, C, h/stride, w/stride)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(y)) + self.downsample(x))


class ResNet(nn.Module):
    """3-D stem and ResNet-18 trunk, one vector per frame."""

    def __init__(self, widths: tuple[int, int, int, int], relu: str) -> None:
        super().__init__()
        tail = [_ACTIVATIONS[relu].make(widths[0]), nn.MaxPool2d(3, 2, 1)]
        if _ACTIVATIONS[relu].monotone:
            tail.reverse()  # the same values; after the pool there is four times less to do
        self.frontend3D = nn.Sequential(StemConv(widths[0]), BatchNorm(widths[0]), *tail)
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        width_in = widths[0]
        for index, width in enumerate(widths):
            stride = 1 if index == 0 else 2
            stages[f"layer{index + 1}"] = nn.Sequential(
                BasicBlock(width_in, width, stride, relu), BasicBlock(width, width, 1, relu)
            )
            width_in = width
        self.trunk = nn.Sequential(stages)
        for module in self.trunk.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 5, height, width) windows of frames -> (n, widths[-1])."""
        if any(m.uses_batch for m in self.modules() if isinstance(m, BatchNorm)):
            return self._frames(x)
        return torch.cat([self._frames(chunk) for chunk in x.split(CHUNK)])

    def _frames(self, x: Tensor) -> Tensor:
        return self.trunk(self.frontend3D(x)).mean((2, 3))


class VideoFeatures(nn.Module):
    """ResNet and projection to the Transformer's width."""

    def __init__(self, config: VideoEncoderConfig) -> None:
        super().__init__()
        self.resnet = ResNet(config.resnet_widths, config.relu)
        self.proj = nn.Linear(config.resnet_widths[-1], config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 5, height, width) -> (n, E)."""
        return self.proj(self.resnet(x))


def frame_windows(video: Tensor, mask: Tensor) -> Tensor:
    """The five frames around each valid frame, in channels-last memory.

    Args:
        video: (B, T, height, width); frames outside `mask` count as zeros, like those before the first.
        mask: (B, T) bool.

    Returns: (mask.sum(), 5, height, width).
    """
    half = STEM_FRAMES // 2
    padded = F.pad(video * mask[:, :, None, None].to(video.dtype), (0, 0, 0, 0, half, half))
    windows = padded.unfold(1, STEM_FRAMES, 1)[mask]  # (B, T, height, width, 5) -> (n, height, width, 5)
    return windows.contiguous().permute(0, 3, 1, 2)


# ---- Transformer -----------------------------------------------------------------------------


class PositionConv(nn.Module):
    """Grouped convolution over time as relative position embedding; weight normalised per tap (w = g v / |v|)."""

    def __init__(self, width: int, taps: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.groups, self.taps = groups, taps
        self.weight_v = nn.Parameter(torch.empty(width, width // groups, taps))
        nn.init.normal_(self.weight_v, std=math.sqrt(4 * (1 - dropout) / (taps * width)))
        self.weight_g = nn.Parameter(self.weight_v.detach().norm(dim=(0, 1), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E)."""
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        y = F.conv1d(x.transpose(1, 2), weight, self.bias, padding=self.taps // 2, groups=self.groups)
        return F.gelu(y[..., : x.shape[1]]).transpose(1, 2)  # an even kernel yields one frame too many


class Attention(nn.Module):
    """Multi-head self-attention, LoRA on the query and value projections."""

    def __init__(self, config: VideoEncoderConfig) -> None:
        super().__init__()
        width, rank = config.embed_dim, config.lora_rank
        self.heads, self.dropout, self.rank, self.scale = config.heads, config.dropout, rank, config.lora_scale
        self.fused = True
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        if rank:
            self.lora_down_Q = nn.Linear(width, rank, bias=False)
            self.lora_up_Q = nn.Linear(rank, width, bias=False)
            self.lora_down_V = nn.Linear(width, rank, bias=False)
            self.lora_up_V = nn.Linear(rank, width, bias=False)
            nn.init.zeros_(self.lora_up_Q.weight)  # a fresh adapter changes nothing
            nn.init.zeros_(self.lora_up_V.weight)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, E) -> (B, T, E); `mask` (B, 1, 1, T) bool, True on visible keys."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.rank:
            q = q + self.scale * self.lora_up_Q(self.lora_down_Q(x))
            v = v + self.scale * self.lora_up_V(self.lora_down_V(x))
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))  # (B, heads, T, E/heads)
        dropout = self.dropout if self.training else 0.0
        attend = F.scaled_dot_product_attention if self.fused else plain_attention
        y = attend(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(y.transpose(1, 2).flatten(2))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, dropout_p: float) -> Tensor:
    """Softmax attention step by step, (B, heads, T, width) each; the softmax is one precision wider than its input."""
    wide = torch.float64 if q.dtype is torch.float32 and q.device.type == "cpu" else torch.float32
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (B, heads, T, T)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    weights = scores.softmax(-1, dtype=wide).to(q.dtype)
    return F.dropout(weights, dropout_p, training=True) @ v


class Layer(nn.Module):
    """One Transformer layer, normalised before (published models) or after its two halves."""

    def __init__(self, config: VideoEncoderConfig) -> None:
        super().__init__()
        self.pre_norm = config.layer_norm_first
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.embed_dim)
        self.fc1 = nn.Linear(config.embed_dim, config.ffn_dim)
        self.fc2 = nn.Linear(config.ffn_dim, config.embed_dim)
        self.final_layer_norm = nn.LayerNorm(config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, E) -> (B, T, E)."""
        if self.pre_norm:
            x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), mask))
            return x + self._feed_forward(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(x + self.dropout(self.self_attn(x, mask)))
        return self.final_layer_norm(x + self._feed_forward(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(F.gelu(self.fc1(x))))


class Transformer(nn.Module):
    """Position embedding and layers; in training whole layers are skipped with probability `layer_drop`."""

    def __init__(self, config: VideoEncoderConfig) -> None:
        super().__init__()
        self.pre_norm, self.layer_drop = config.layer_norm_first, config.layer_drop
        self.pos_conv = nn.ModuleList(
            [PositionConv(config.embed_dim, config.pos_conv, config.pos_conv_groups, config.dropout)]
        )
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, E), zero on padding -> (B, T, E)."""
        x = x + self.pos_conv[0](x)
        x = self.dropout(x if self.pre_norm else self.layer_norm(x))
        for layer in self.layers:
            if not (self.training and self.layer_drop and torch.rand(()).item() < self.layer_drop):
                x = layer(x, mask)
        return self.layer_norm(x) if self.pre_norm else x


# ---- the encoder -----------------------------------------------------------------------------


class AVHubertEncoder(Encoder):
    """Lip reading states at the pictures' rate, 25/s.

    Args:
        config: sizes, dropout, LoRA.
        fused: a folded stem, channels last, and fused attention, which are faster; else a Conv3d in row-major memory
            and plain attention, as published. The same sums in another order: results are equal up to rounding.

    Raises:
        ConfigError: widths that do not divide.
    """

    frames_per_second = FPS

    def __init__(self, config: VideoEncoderConfig, fused: bool = True) -> None:
        super().__init__()
        for knob, parts in (("heads", config.heads), ("pos_conv_groups", config.pos_conv_groups)):
            if config.embed_dim % parts:
                raise ConfigError(f"video_encoder.embed_dim = {config.embed_dim} is no multiple of {knob} = {parts}")
        self.dim, self.downsample = config.embed_dim, config.downsample
        self.feature_extractor_video = VideoFeatures(config)
        self.layer_norm = nn.LayerNorm(2 * self.dim)
        self.post_extract_proj = nn.Linear(2 * self.dim, self.dim)
        self.dropout_input = nn.Dropout(config.dropout)
        self.encoder = Transformer(config)
        if not fused:
            for weight in self.feature_extractor_video.resnet.trunk.parameters():
                weight.data = weight.data.contiguous()
            for module in self.modules():
                if isinstance(module, (StemConv, Attention)):
                    module.fused = False

    def forward(self, x: Tensor, lengths: Tensor) -> Encoded:
        """(B, T, height, width) normalised grey pictures -> states (B, T, E), zero on padding.

        Raises:
            InputError: the pictures are no such tensor, or too small.
        """
        if x.dim() != 4 or min(x.shape[2:]) < MIN_SIDE * self.downsample:
            raise InputError(
                f"got video of shape {tuple(x.shape)}, expected (rows, frames, height, width) "
                f"with sides of at least {MIN_SIDE * self.downsample} pixels; give grey mouth pictures"
            )
        if self.downsample > 1:
            x = F.avg_pool2d(x, self.downsample)
        frames = x.shape[1]
        mask = valid_mask(lengths, frames)
        states = self.encoder(self._fused(x, mask), key_mask(lengths, frames))
        return Encoded(states * mask[..., None].to(states.dtype), lengths)

    def _fused(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, height, width) -> (B, T, E), zero outside `mask`; the Transformer's input."""
        device = x.device.type
        if torch.is_autocast_enabled(device):  # before the windows are made: five times less to convert
            x = x.to(torch.get_autocast_dtype(device))
        packed = self.feature_extractor_video(frame_windows(x, mask))  # (n, E)
        packed = F.pad(packed, (self.dim, 0))  # concatenation fusion: the audio half is absent, zeros
        packed = self.dropout_input(self.post_extract_proj(self.layer_norm(packed)))
        # The residual stream keeps the weights' precision under autocast.
        out = torch.zeros(*mask.shape, self.dim, dtype=self.layer_norm.weight.dtype, device=x.device)
        return out.masked_scatter(mask[..., None], packed.to(out.dtype))
