"""What of a script was judged: its training loops, and what was not for want of them."""

from __future__ import annotations

import ast
import re

from tune_cropshield.check_script.actions import Actions
from tune_cropshield.check_script.syntax import last_name

# Package, or the name imported from one -> who trains with it, in a loop that is not in the script.
TRAIN_THEMSELVES = {
    r"keras|tensorflow|tf_keras": "Keras",
    r"lightning|pytorch_lightning|lightning_fabric": "Lightning",
    r"fastai": "fastai",
    r"transformers\.\w*Trainer|trl": "the Hugging Face Trainer",
    r"ignite": "Ignite",
    r"catalyst": "Catalyst",
    r"skorch": "skorch",
    r"ultralytics": "Ultralytics",
    r"mmengine|mmcv": "MMEngine",
    r"composer": "Composer",
    r"jax|flax": "JAX",
    r"paddle": "Paddle",
    r"mxnet": "MXNet",
    r"sklearn": "scikit-learn",
}

NOT_PYTORCH = {"tensorflow", "keras", "tf_keras", "jax", "flax", "mxnet", "paddle"}


def trains(actions: Actions) -> bool:
    """Tells whether a PyTorch training loop, or a step of one, is in the script."""
    return bool(actions.of("backward", "step", "scaler step")) or any(
        last_name(call.func) in ("backward", "manual_backward") and isinstance(call.func, ast.Attribute)
        for call in actions.syntax.calls
    )


def _imported(actions: Actions) -> list[str]:
    names = []
    for node in actions.syntax.nodes:
        if isinstance(node, ast.Import):
            names += [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names += [f"{node.module}.{each.name}" for each in node.names]
    return names


def is_for_others(actions: Actions) -> bool:
    """Tells whether a script is written for another framework than PyTorch, whose loops have other rules."""
    packages = {name.partition(".")[0] for name in _imported(actions)}
    return bool(packages & NOT_PYTORCH) and not packages & {"torch", "torchvision"}


def why_no_loop(actions: Actions) -> str:
    """Returns one line on a script that has no PyTorch training loop, with who trains in its place."""
    names = _imported(actions)
    who = [
        told
        for package, told in TRAIN_THEMSELVES.items()
        if any(re.match(rf"({package})(\.|$)", name) for name in names)
    ]
    here = f" ({' and '.join(who[:2])} would train here)" if who else ""
    return f"no PyTorch training loop found{here}"
