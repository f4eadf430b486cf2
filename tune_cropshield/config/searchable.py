"""Which settings can be searched, and which of them decide on the network and its images."""

from __future__ import annotations

from tune_cropshield.config.settings import TrialConfig

# Settings that cannot be searched: trials in several precisions and layouts say more of the machine than of training.
FIXED = ("progressive_sizes", "precision", "channels_last")
# Choices that decide on the network or its images: each of their combinations has its own memory plan.
PLANNED = ("model", "head", "image_size", "freeze_backbone")
CHOICES_ONLY = ("model", "image_size")  # networks are words, and each size takes photographs decoded for it
OWNED_BY_SEARCH = {
    "epochs": "[search] epochs",
    "seed": "[search] seed",
    "metric": "[search] metric",
    "threads": "the search",
    "micro_batch": "the plan",
    "accumulation": "the plan",
}
OF_PHOTOGRAPHS = ("fit",)  # of [data]; what else is searched is of [trial]
SEARCHABLE = [
    *(name for name in TrialConfig.model_fields if name not in FIXED and name not in OWNED_BY_SEARCH),
    *OF_PHOTOGRAPHS,
]
