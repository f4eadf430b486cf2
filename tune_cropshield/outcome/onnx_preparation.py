"""`Preparation` in PyTorch's operations, so that it can be a part of an ONNX file: photographs as decoded -> images.

Pillow's bilinear resize is repeated to the last bit, because ONNX's own `Resize` differs from it by up to 17 of 255
levels (onnxruntime 1.31). It is two matrix products with a rounding to whole levels after each.

B: photographs, H, W: their height and width, S: side of the image, L: a side of the photograph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tune_cropshield.data.preparation import FILL, Preparation

ONE = 2**22  # Pillow's weights are whole numbers, and this is 1


class Prepared(nn.Module):
    """uint8 RGB (B, H, W, 3) of any B, H and W -> images (B, 3, S, S) as `preparation` makes them."""

    fill_311: Tensor

    def __init__(self, preparation: Preparation) -> None:
        super().__init__()
        self.preparation = preparation
        self.register_buffer("fill_311", torch.tensor(FILL, dtype=torch.float64).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        preparation, side = self.preparation, self.preparation.image_size
        height, width = images.shape[1:3]
        new_width, new_height = preparation.resized(width, height)
        rows_SH, in_row_S = weights(height, new_height, preparation.first_pixel(new_height, side), side)
        columns_SW, in_column_S = weights(width, new_width, preparation.first_pixel(new_width, side), side)
        # Pillow 13 begins with the rows where it takes away more than twice as many of them as of the columns.
        lost_rows, lost_columns = height - new_height, width - new_width
        rows_first = torch.scalar_tensor(torch.sym_min(lost_rows, lost_rows - 2 * lost_columns)) > 0
        levels_B3HW = images.permute(0, 3, 1, 2).to(torch.float64)
        levels_B3SS = torch.cond(
            rows_first,
            lambda levels, rows, columns: whole_levels(whole_levels(rows @ levels) @ columns.T),
            lambda levels, rows, columns: whole_levels(rows @ whole_levels(levels @ columns.T)),
            (levels_B3HW, rows_SH, columns_SW),
        )
        shown_B3SS = torch.where(in_row_S[:, None] & in_column_S, levels_B3SS, self.fill_311)
        return preparation.images(shown_B3SS.to(torch.uint8).permute(0, 2, 3, 1))


def weights(length: int, resized: int, first: int, side: int) -> tuple[Tensor, Tensor]:
    """Returns how much each pixel counts for each pixel of the image, (S, L), and which of these show the photograph.

    Args:
        length, resized: a side of the photograph before and after it is resized, in px.
        first: where on the resized side the image begins, below 0 where it is filled.
        side: of the image.
    """
    at_S = torch.arange(side, dtype=torch.float64) + first
    inside_S = (at_S >= 0) & (at_S < resized)
    scale = torch.scalar_tensor(length, dtype=torch.float64) / resized
    centre_S = (at_S + 0.5) * scale
    pixel_L = torch.arange(length, dtype=torch.float64) + 0.5
    # A triangle as wide as two pixels, of the photograph or of the image, whichever are larger.
    weight_SL = (1 - ((pixel_L - centre_S[:, None]) * (1 / scale.clamp(min=1))).abs()).clamp(min=0)
    sum_S1 = torch.where(inside_S[:, None], weight_SL.sum(1, keepdim=True), 1.0)
    weight_SL = torch.where(inside_S[:, None], weight_SL * (1 / sum_S1), 0.0)
    return (weight_SL * ONE + 0.5).floor(), inside_S


def whole_levels(sums: Tensor) -> Tensor:
    """Returns weighted sums of levels, rounded as Pillow does."""
    return ((sums + ONE // 2) / ONE).floor()
