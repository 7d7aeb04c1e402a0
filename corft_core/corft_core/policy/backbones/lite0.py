"""EfficientNet-Lite0 up to a chosen stride, with batch normalisation folded into the convolutions.

The layout is that of Tan and Le, "EfficientNet" (arXiv 1905.11946), Lite variant: no squeeze-and-excitation,
ReLU6. Folding keeps ImageNet statistics fixed, also while fine-tuning, so an output never depends on the rest
of its batch, and a forward on a CPU takes about half the time.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BATCH_NORM_EPS = 1e-3  # TensorFlow's value, with which the weights were trained
# (kernel, stride, expansion, channels, repeats) of each stage; arXiv 1905.11946, table 1, depth not scaled
_STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3))
_STEM_CHANNELS = 32
# index of the last block at each stride, and its channels
TAPS = {4: (2, 24), 8: (4, 40), 16: (10, 112)}


class _SameConv(nn.Conv2d):
    """TensorFlow's SAME padding: with stride 2 and an even input the extra pixel is at the end."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        weight, padding = self.weight, [kernel // 2] * 2
        if stride == 2:
            # An even side wants one row less of padding in front. A zero row before the kernel has that effect
            # and, unlike padding the image, copies nothing.
            front = [1 - size % 2 for size in input.shape[-2:]]
            weight = F.pad(weight, (front[1], 0, front[0], 0))
        return F.conv2d(input, weight, self.bias, stride, padding, 1, self.groups)


class _Pointwise(nn.Conv2d):
    """1×1 convolution as a matrix product over channels_last memory: several times faster on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """Inverted bottleneck: 1×1 expansion, depthwise convolution, 1×1 projection, skip where shapes agree."""

    def __init__(self, kernel: int, stride: int, expansion: int, channels_in: int, channels: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.expand = _Pointwise(channels_in, hidden, 1) if expansion != 1 else None
        self.depthwise = _SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _Pointwise(hidden, channels, 1)
        self.skip = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x), True)
        y = self.project(F.relu6(self.depthwise(y), True))
        return x + y if self.skip else y


class Lite0(nn.Module):
    """Images float (B, 3, H, W), ImageNet-normalised → a map (B, channels, H/s, W/s) per stride asked for."""

    def __init__(self, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.strides = strides
        self.stem = _SameConv(3, _STEM_CHANNELS, 3, 2)
        last = max(TAPS[stride][0] for stride in strides)
        blocks: list[_Block] = []
        channels_in = _STEM_CHANNELS
        for kernel, stage_stride, expansion, channels, repeats in _STAGES:
            for repeat in range(repeats):
                stride = stage_stride if repeat == 0 else 1
                blocks.append(_Block(kernel, stride, expansion, channels_in, channels))
                channels_in = channels
        self.blocks = nn.ModuleList(blocks[: last + 1])

    def forward(self, images: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(images), True)
        maps: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            maps[index] = x
        return [maps[TAPS[stride][0]] for stride in self.strides]

    @torch.no_grad()
    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Fold the published state dict (names like `_conv_stem.weight`, `_blocks.3._bn1.bias`) into self.

        Raises KeyError when an expected tensor is absent.
        """
        _fold(self.stem, state, "_conv_stem", "_bn0")
        for index, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            prefix = f"_blocks.{index}."
            if block.expand is not None:
                _fold(block.expand, state, f"{prefix}_expand_conv", f"{prefix}_bn0")
            _fold(block.depthwise, state, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
            _fold(block.project, state, f"{prefix}_project_conv", f"{prefix}_bn2")


def _fold(conv: nn.Conv2d, state: Mapping[str, Tensor], conv_name: str, norm_name: str) -> None:
    """Convolution followed by normalisation = convolution with scaled weights and a bias."""
    scale = state[f"{norm_name}.weight"] / torch.sqrt(state[f"{norm_name}.running_var"] + _BATCH_NORM_EPS)
    conv.weight.copy_(state[f"{conv_name}.weight"] * scale[:, None, None, None])
    assert conv.bias is not None
    conv.bias.copy_(state[f"{norm_name}.bias"] - state[f"{norm_name}.running_mean"] * scale)
