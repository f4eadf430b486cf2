"""The stock recipe that `search_vs_stock.py` compares with: the guide's training loop in Ray Tune, as documented.

    python benchmarks/stock_recipe.py --data DIR --model tiny_cnn --image-size 64 --trials 16 --epochs 8
        --batches 16 32 64 --out OUT

The loop is the guide's: autocast and GradScaler on a GPU, loss / accumulation, clip_grad_norm_, loss.item() and a count
of hits each batch. Data come from ImageFolder through DataLoader processes. The search is ray.tune's first page: a
function trainable, OptunaSearch, ASHAScheduler, a fresh process for each trial, one trial per GPU (or core),
tune.report with a checkpoint after each epoch. The batch is trained whole (accumulation 1), which is the fastest way to
make it. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from torch import nn
from torch.utils.data import DataLoader, Subset, random_split
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tune_cropshield.data.augment import PRESETS
from tune_cropshield.data.preparation import IMAGENET_MEAN, IMAGENET_STD
from tune_cropshield.training.models import build_model

ACCUMULATION = 1


def training_transform(image_size: int) -> Callable[[Any], torch.Tensor]:
    """Returns what a stock loader does to each photograph: the guide's moderate augmentation, one picture at a time."""
    preset = PRESETS["moderate"]
    steps = [
        transforms.RandomResizedCrop(image_size, scale=(preset.crop_area, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.RandomRotation(preset.rotation_degrees),
        transforms.ColorJitter(preset.brightness, preset.contrast, preset.saturation, preset.hue),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    composed: Callable[[Any], torch.Tensor] = transforms.Compose(steps)
    return composed


def make_loaders(data: str, image_size: int, batch: int, workers: int) -> tuple[DataLoader[Any], DataLoader[Any], int]:
    """Returns the loaders of 80 % to train on, augmented like the preset "moderate", and of 10 % to validate on; and
    the number of classes.
    """
    normalize = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    plain = transforms.Compose([transforms.Resize((image_size, image_size)), *normalize])
    training, whole = ImageFolder(data, training_transform(image_size)), ImageFolder(data, plain)
    train, val, _ = random_split(range(len(whole)), [0.8, 0.1, 0.1], torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"batch_size": batch, "num_workers": workers, "pin_memory": torch.cuda.is_available()}
    return (
        DataLoader(Subset(training, list(train)), shuffle=True, **options),
        DataLoader(Subset(whole, list(val)), **options),
        len(whole.class_to_idx),  # `.classes` here would make cloudpickle pack torch.classes, which cannot be
    )


def train(config: dict[str, Any]) -> None:
    """Trains one trial, reporting each epoch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_loader, val_loader, num_classes = make_loaders(
        config["data"], config["image_size"], config["batch"] // ACCUMULATION, config["workers"]
    )
    model = build_model(config["model"], num_classes).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"], weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=3)
    scaler = torch.amp.GradScaler("cuda") if device.type == "cuda" else None
    for _ in range(config["epochs"]):
        model.train()
        running_loss, correct, total = 0.0, 0, 0
        optimizer.zero_grad()
        for i, (images, labels) in enumerate(train_loader):
            images, labels = images.to(device), labels.to(device)
            with torch.autocast(device.type, enabled=scaler is not None):
                outputs = model(images)
                loss = criterion(outputs, labels)
            loss = loss / ACCUMULATION
            torch.autograd.backward(scaler.scale(loss) if scaler is not None else loss)
            if (i + 1) % ACCUMULATION == 0:
                if scaler is not None:
                    scaler.unscale_(optimizer)
                if config["max_norm"] is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), max_norm=config["max_norm"])
                if scaler is not None:
                    scaler.step(optimizer)
                    scaler.update()
                else:
                    optimizer.step()
                optimizer.zero_grad()
            running_loss += loss.item() * ACCUMULATION
            correct += outputs.max(1)[1].eq(labels).sum().item()
            total += labels.size(0)
        val_loss, val_acc = validate(model, val_loader, criterion, device)
        scheduler.step(val_loss)
        with tempfile.TemporaryDirectory() as folder:
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict()},
                os.path.join(folder, "checkpoint.pt"),
            )
            metrics = {
                "train_loss": running_loss / len(train_loader),
                "train_acc": correct / total,
                "val_loss": val_loss,
                "val_acc": val_acc,
            }
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


@torch.no_grad()
def validate(
    model: nn.Module, loader: DataLoader[Any], criterion: nn.Module, device: torch.device
) -> tuple[float, float]:
    """Returns the loss and the share of the samples that are classified rightly."""
    model.eval()
    loss, correct, total = 0.0, 0, 0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        with torch.autocast(device.type, enabled=device.type == "cuda"):
            outputs = model(images)
            loss += criterion(outputs, labels).item() * labels.size(0)
        correct += outputs.max(1)[1].eq(labels).sum().item()
        total += labels.size(0)
    return loss / total, correct / total


def main() -> None:
    """Searches and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="tiny_cnn")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--grace", type=int, default=2)
    parser.add_argument("--reduction", type=int, default=3)
    parser.add_argument("--lr", type=float, nargs=2, default=(1e-4, 3e-2))
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--workers", type=int, default=2, help="DataLoader processes of each loader")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    fixed = {
        "data": str(arguments.data.absolute()),
        **{name: vars(arguments)[name] for name in ("model", "image_size", "epochs", "workers")},
    }
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1, "gpu": 1} if torch.cuda.is_available() else {"cpu": 1}),
        param_space={
            **fixed,
            "lr": tune.loguniform(*arguments.lr),
            "max_norm": tune.choice([None, 0.5, 1.0, 2.0, 5.0]),
            "batch": tune.choice(arguments.batches),
        },
        tune_config=tune.TuneConfig(
            metric="val_acc",
            mode="max",
            search_alg=OptunaSearch(seed=0),
            scheduler=ASHAScheduler(
                max_t=arguments.epochs, grace_period=arguments.grace, reduction_factor=arguments.reduction
            ),
            num_samples=arguments.trials,
        ),
        run_config=tune.RunConfig(name="stock", storage_path=str(arguments.out.absolute())),
    )
    results = tuner.fit()
    best = results.get_best_result(scope="all")
    epochs = sum(result.metrics["training_iteration"] for result in results if result.metrics)
    accuracy = float(best.metrics_dataframe["val_acc"].max())
    print(
        json.dumps(
            {"trials": len(results), "failed": results.num_errors, "epochs": epochs, "best_val_acc": round(accuracy, 4)}
        )
    )


if __name__ == "__main__":
    main()
