"""What is asked of a network before anything is decoded."""

from __future__ import annotations

import pytest

from tune_cropshield.errors import ConfigError
from tune_cropshield.training.model_checks import check_sizes


def test_a_network_that_computes_its_widths_with_tensors_is_asked_too() -> None:
    check_sizes("regnet_y_400mf", (32, 64))
    with pytest.raises(ConfigError, match="image_size: alexnet cannot take pictures of 16 px"):
        check_sizes("alexnet", (16,))
