"""Bad input: exit code 2, one clear line a fault, and nothing half-written. No test here trains anything."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_disks import mounted

from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, save_config
from tune_cropshield.shell import command as spelled
from tune_cropshield.training.model_checks import check_sizes
from tune_cropshield.training.models import build_model

CONFIG = '[trial]\nmodel = "tiny_cnn"\nimage_size = 32\neffective_batch = 8\nepochs = 1\n'


@pytest.fixture(autouse=True)
def _own_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs commands in an empty folder with a cache of its own."""
    (home / "work").mkdir()
    monkeypatch.chdir(home / "work")


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> list[str]:
    """Runs a command that must be refused and leave the folder as it was; returns what it says on stderr without
    "error: ".
    """
    before = tree(Path())
    try:
        code = main([str(word) for word in argv])
    except SystemExit as end:
        code = end.code
    told = capsys.readouterr().err.splitlines()
    assert code == 2
    assert tree(Path()) == before
    assert told and all(line.startswith("error: ") for line in told)
    return [line.removeprefix("error: ") for line in told]


def tree(folder: Path) -> dict[str, bytes | None]:
    """Returns path -> content of everything below `folder`; the lock files that the first look at a folder leaves do
    not count.
    """
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def draw(folder: Path, classes: int, per_class: int) -> Path:
    """Writes tiny JPEGs, each of another colour, in one sub-folder per class."""
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for index in range(per_class):
            Image.new("RGB", (24, 24), (40 * label, 10 * index, 90)).save(folder / f"class{label}" / f"{index}.jpg")
    return folder


@pytest.fixture
def config(home: Path) -> Path:
    """A configuration without photographs."""
    (home / "work" / "config.toml").write_text(CONFIG)
    return Path("config.toml")


@pytest.fixture
def run_dir(home: Path) -> Path:
    """A trained run of 3 classes, as far as `predict` and `evaluate` can see."""
    folder = home / "work" / "run"
    folder.mkdir()
    save_config(
        RunConfig(data=DataConfig(), trial=TrialConfig(model="tiny_cnn", image_size=32)), folder / "config.toml"
    )
    (folder / "classes.json").write_text('["a", "b", "c"]')
    (folder / "preparation.json").write_text("{}")
    save_file(build_model("tiny_cnn", 3).state_dict(), folder / "model.safetensors")
    return Path("run")


# Photographs


def test_a_folder_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = refused(capsys, "search", "--data", "nowhere", "--out", "out", "--device", "cpu")

    assert told == f"there is no folder {str(Path('nowhere').absolute())!r}"


def test_a_folder_name_longer_than_the_system_allows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = refused(capsys, "search", "--data", "x" * 5000, "--out", "out", "--device", "cpu")

    assert "File name too long" in told


def test_a_photograph_instead_of_a_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    draw(Path("data"), 2, 1)

    (told,) = refused(capsys, "search", "--data", "data/class0/0.jpg", "--out", "out", "--device", "cpu")

    assert told.endswith(
        "is not a folder; expected one sub-folder per class, as in DATA/healthy/1.jpg and DATA/rust/2.jpg"
    )


def test_a_folder_without_images_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/class0").mkdir(parents=True)

    (told,) = refused(capsys, "search", "--data", "data", "--out", "out", "--device", "cpu")

    assert told.startswith("no images in the sub-folders of ")


def test_a_single_class_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    draw(Path("data"), 1, 4)

    (told,) = refused(capsys, "search", "--data", "data", "--out", "out", "--device", "cpu")

    assert told.startswith("at least two classes are needed, but ")


def test_a_class_with_too_few_images_to_split_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    draw(Path("data"), 2, 2)

    (told,) = refused(capsys, "search", "--data", "data", "--out", "out", "--device", "cpu")

    assert (
        told
        == "too few distinct images to split into train, test, val: 'class0' has 2, needs 3; 'class1' has 2, needs 3"
    )


def test_too_many_unreadable_images_are_refused_and_named(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    draw(Path("data"), 2, 5)
    whole = Path("data/class0/0.jpg").read_bytes()
    Path("data/class0/0.jpg").write_bytes(whole[: len(whole) // 2])
    Path("data/class1/1.jpg").write_text("no image")

    (told,) = refused(capsys, "train", "--config", config, "--data", "data", "--out", "out", "--device", "cpu")

    assert "2 of 10 images in" in told and "cannot be read, more than the 5% allowed: class0/0.jpg (" in told


# Flags


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--trials", "0"], "--trials: must be at least 1, but got 0"),
        (["--trials", "-3"], "--trials: must be at least 1, but got -3"),
        (
            ["--trials", "x"],
            "argument --trials: must be a whole number, but got 'x' (HELP tells more)",
        ),
        (["--epochs", "0"], "--epochs: must be at least 1, but got 0"),
        (["--image-size", "3"], "--image-size: must be at least 16, but got 3"),
        (["--trials-per-gpu", "0"], '--trials-per-gpu: must be a whole number from 1 to 1024, or "auto", but got 0'),
        (["--trials-per-gpu", "-1"], '--trials-per-gpu: must be a whole number from 1 to 1024, or "auto", but got -1'),
        (["--trials-per-gpu", "x"], '--trials-per-gpu: must be a whole number from 1 to 1024, or "auto", but got "x"'),
        (["--time-budget", "soon"], "--time-budget: 'soon' is not a duration: write 45s, 90m, 2h or 1h30m"),
        (
            ["--vram", "lots"],
            (
                "--vram: 'lots' is not an amount of GPU memory: write 8, 8GB, 8GiB, 8000MB, auto or rtx4060-laptop, "
                "rtx3050-laptop"
            ),
        ),
        (["--seed", "-1"], "--seed: must be at least 0, but got -1"),
        (["--data", ""], "argument --data: must not be empty (HELP tells more)"),
        (
            ["--device", "gpu"],
            "argument --device: there is no 'gpu'; did you mean cuda? known: auto, cpu, cuda (HELP tells more)",
        ),
        (["--dry-run", "--json-lines"], "--dry-run prints a plan for people: leave out --json-lines"),
        (
            ["--quiet", "--json-lines"],
            "argument --json-lines: not allowed with argument --quiet (HELP tells more)",
        ),
        (
            ["--resume"],
            "--resume: there is no search in results/runs to continue: name its folder (--out DIR), or leave out "
            "--resume",
        ),
        (["--resume", "--out", "gone"], "gone contains no search to continue (search.toml is missing)"),
    ],
)
def test_a_wrong_flag_of_search_is_told_under_its_name(
    capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    assert refused(capsys, "search", "--device", "cpu", *flags) == [told.replace("HELP", spelled("search", "--help"))]


def test_several_wrong_flags_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "search", "--trials", "0", "--seed", "-1", "--image-size", "3") == [
        "--trials: must be at least 1, but got 0",
        "--seed: must be at least 0, but got -1",
        "--image-size: must be at least 16, but got 3",
    ]


def test_an_unknown_sampler_is_told_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = refused(capsys, "search", "--sampler", "grid")

    assert "--sampler" in told and all(name in told for name in ("grid", "tpe", "random", "gp"))


def test_an_unknown_model_is_told_under_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = refused(capsys, "search", "--model", "resnet51", "--dry-run")

    assert told.startswith("--model: unknown model 'resnet51'; did you mean resnet50")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    for command in (["search", "--out", "out"], ["train", "--config", str(config), "--data", "data", "--out", "out"]):
        (told,) = refused(capsys, *command, "--device", "cuda")
        assert told.startswith("--device cuda: ") and told.endswith("use --device cpu, or auto")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--model", "alexnet", "--image-size", "16"], "image_size: alexnet cannot take pictures of 16 px ("),
        (["--model", "vit_b_16", "--image-size", "64"], "image_size: vit_b_16 cannot take pictures of 64 px ("),
    ],
)
def test_a_size_that_the_network_cannot_take_is_refused_with_one_that_it_can(
    capsys: pytest.CaptureFixture[str], config: Path, flags: list[str], told: str
) -> None:
    works = {"alexnet": "): 64 px works", "vit_b_16": "): 224 px works"}[flags[1]]
    for command in (
        ["search", "--dry-run"],
        ["search", "--data", str(draw(Path(f"data{flags[1]}"), 2, 4)), "--out", "out"],
    ):
        (found,) = refused(capsys, *command, "--device", "cpu", *flags)
        assert found.startswith(told) and found.endswith(works)


def test_the_sizes_of_a_training_are_checked_too(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    config.write_text('[trial]\nmodel = "alexnet"\nimage_size = 64\nprogressive_sizes = {"1" = 32}\n')

    (told,) = refused(
        capsys, "train", "--config", config, "--data", draw(Path("data"), 2, 4), "--out", "out", "--device", "cpu"
    )

    assert told.startswith("image_size: alexnet cannot take pictures of 32 px (") and told.endswith("): 64 px works")


@pytest.mark.parametrize("model", ["tiny_cnn", "cropshield_cnn"])
def test_our_own_networks_take_every_size_that_may_be_asked_for(model: str) -> None:
    check_sizes(model, (16, 17, 48, 225, 1024))


# Search spaces


@pytest.mark.parametrize("name", ["demo", "demo.toml"])
def test_a_shipped_space_is_found_by_its_name(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["search", "--space", name, "--dry-run", "--device", "cpu"]) == 0
    assert "worst case: 12 trials x 8 epochs = 96 epochs, if none is stopped early" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "whose"),
    [
        ("resnet18", "ranges and starting points of resnet50_onecycle.toml"),
        ("tiny_cnn", None),
        ("efficientnet_b0", "ranges of cropshield_cnn.toml, and starting points that are usual for AdamW"),
    ],
)
def test_a_network_without_photographs_is_told_whose_ranges_it_takes(
    model: str, whose: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--model", model, "--dry-run", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert ("(--space FILE takes others)" in told) == (whose is not None)
    assert whose is None or f"{whose} (--space FILE takes others)" in told


def test_what_is_no_space_is_refused_with_the_shipped_ones(capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder").mkdir()
    shipped = "shipped: cropshield_cnn.toml, demo.toml, efficientnet_b0.toml, "
    shipped += "resnet50_fine_tuning.toml, resnet50_onecycle.toml, small_networks.toml, tiny_cnn.toml"

    assert refused(capsys, "search", "--space", "demos") == [
        f"--space demos: no such search space; did you mean demo? {shipped}"
    ]
    assert refused(capsys, "search", "--space", "../demo.toml") == [
        f"--space ../demo.toml: no such search space; {shipped}"
    ]
    assert refused(capsys, "search", "--space", "folder") == [
        f"--space folder: is a folder, no search-space file; {shipped}"
    ]
    assert refused(capsys, "search", "--space", "") == [f"--space : no such search space; {shipped}"]
    assert refused(capsys, "search", "--space", "x" * 5000)[0].endswith(f"no such search space; {shipped}")


# Where to write


def test_a_folder_that_holds_a_search_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/search.toml").write_text("")

    assert refused(capsys, "search", "--out", "out", "--device", "cpu") == [
        "out already contains a search: continue it (--resume) or give another folder (--out)"
    ]


def test_a_folder_with_something_in_it_is_refused(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    Path("full").mkdir()
    Path("full/config.toml").write_text("mine")
    Path("file").write_text("mine")

    assert refused(capsys, "search", "--out", "full", "--device", "cpu") == [
        "full exists and is not an empty folder: give another one (--out)"
    ]
    assert refused(capsys, "search", "--out", "file", "--device", "cpu") == [
        "file exists and is not an empty folder: give another one (--out)"
    ]
    train = ["train", "--config", config, "--data", draw(Path("data"), 2, 4), "--device", "cpu", "--out"]
    assert refused(capsys, *train, "full") == ["full exists and is not an empty folder: give another one (--out)"]
    assert refused(capsys, *train, "file") == [
        f"file cannot be used: {Path('file').absolute()} is not a folder; give another folder (--out)"
    ]


def test_a_path_below_a_file_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], config: Path, run_dir: Path
) -> None:
    Path("file").write_text("mine")
    place = Path("file").absolute()

    told = [f"file/out cannot be used: {place} is not a folder; give another folder (--out)"]
    assert refused(capsys, "search", "--out", "file/out", "--device", "cpu") == told
    assert refused(capsys, "train", "--config", config, "--data", "data", "--out", "file/out") == told
    assert refused(capsys, "export", run_dir, "--to", "file/out") == [told[0].replace("--out", "--to")]
    assert refused(capsys, "sample-data", "file/out")[0].startswith("photographs cannot be made in ")


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    with mounted(home / "disk", "size=64k") as folder:
        yield folder


@pytest.fixture
def read_only_disk(home: Path) -> Iterator[Path]:
    """A disk that nobody may write to, not even root."""
    with mounted(home / "disk", "ro") as folder:
        yield folder


def test_a_folder_that_must_not_be_written_to_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], config: Path, run_dir: Path, read_only_disk: Path
) -> None:
    out = read_only_disk / "out"
    told = [f"{out} cannot be used: {read_only_disk} must not be written to; give another folder (--out)"]
    data = draw(Path("data"), 2, 4)

    assert refused(capsys, "search", "--data", data, "--out", out, "--device", "cpu") == told
    assert refused(capsys, "train", "--config", config, "--data", data, "--out", out, "--device", "cpu") == told
    assert (
        refused(capsys, "sample-data", out)[0] == f"photographs cannot be made in {str(out)!r}: Read-only file system"
    )


def test_a_cache_that_must_not_be_written_to_is_refused(
    capsys: pytest.CaptureFixture[str], read_only_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(read_only_disk))

    (told,) = refused(capsys, "search", "--data", draw(Path("data"), 2, 4), "--out", "out", "--device", "cpu")

    assert (
        told == f"the cache folder {str(read_only_disk / 'tune_cropshield')!r} cannot be written: Read-only file system"
    )


def test_leaves_on_a_full_disk_are_refused_and_nothing_of_them_stays(
    capsys: pytest.CaptureFixture[str], small_disk: Path
) -> None:
    (told,) = refused(capsys, "sample-data", small_disk / "leaves")

    assert (
        told
        == f"no space left on the disk while making photographs in {small_disk / 'leaves'}: free some, then try again"
    )
    assert list(small_disk.iterdir()) == []


# train


def test_train_without_photographs_is_refused(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    assert refused(capsys, "train", "--config", config) == ["config.toml names no photographs: give --data DIR"]


def test_train_tells_the_faults_of_file_and_flags_together(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    config.write_text('[trial]\nlr = "1e-4"\n')

    assert refused(capsys, "train", "--config", config, "--epochs", "0") == [
        'config.toml: trial.lr: must be a number, but got "1e-4"',
        "--epochs: must be at least 1, but got 0",
    ]


def test_weights_to_start_from_that_are_missing_are_refused(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    config.write_text(CONFIG + 'pretrained = "gone.pt"\n')

    assert refused(
        capsys, "train", "--config", config, "--data", draw(Path("data"), 2, 4), "--out", "out", "--device", "cpu"
    ) == ["pretrained weights 'gone.pt' do not exist"]


def test_a_training_is_not_resumed_with_other_settings(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    Path("out").mkdir()
    Path("out/metrics.jsonl").write_text("")
    Path("out/config.toml").write_text(CONFIG + "lr = 0.5\n[data]\nsplit_seed = 3\n")
    train = ["train", "--config", config, "--data", draw(Path("data"), 2, 4), "--out"]

    assert refused(capsys, *train, "out", "--resume") == [
        "out was trained with other settings: split_seed (3 then, 0 now); lr (0.5 then, 0.0001 now). To continue it, "
        "set the configuration back; or start a new training with another --out"
    ]
    assert refused(capsys, *train, "out") == [
        "out already contains a training: continue it (--resume) or give another folder (--out)"
    ]
    assert refused(capsys, *train, "gone", "--resume") == [
        "gone contains no training to continue (config.toml is missing)"
    ]
    assert refused(capsys, *train[:-1], "--resume") == [
        "--resume: there is no training in results/runs to continue: name its folder (--out DIR), or leave out --resume"
    ]


# What is trained


def test_a_folder_that_is_no_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    told = (
        "is no trained run: config.toml, classes.json, model.safetensors missing (give a folder like OUT/best or "
        "OUT/t000)"
    )

    assert refused(capsys, "evaluate", "empty") == [f"empty {told}"]
    assert refused(capsys, "predict", "empty", "leaf.jpg") == [f"empty {told}"]
    assert refused(capsys, "export", "empty") == ["empty holds no search (study.journal is missing)"]
    nothing = "gone: there is no such folder, nor is there one of that name in results/runs (list shows all)"
    assert refused(capsys, "evaluate", "gone") == [f"RUN_DIR {nothing}"]
    assert refused(capsys, "predict", "gone", "leaf.jpg") == [f"RUN_DIR {nothing}"]
    assert refused(capsys, "export", "gone") == [f"SEARCH_DIR {nothing}"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.toml", b"[trial", "run/config.toml: not valid TOML: "),
        ("config.toml", b"[trial]\nlr = -1\n", "run/config.toml: trial.lr: must be above 0, but got -1"),
        ("classes.json", b"{}", "run/classes.json holds no list of two or more class names"),
        ("classes.json", b'["a", 2]', "run/classes.json holds no list of two or more class names"),
        ("classes.json", b"[", "run/classes.json cannot be read: "),
        ("classes.json", b"\xff\xfe", "run/classes.json cannot be read: "),
        (
            "classes.json",
            b'["a", "b"]',
            "run/model.safetensors holds the weights of another network than tiny_cnn with 2 classes: 2 tensors are ",
        ),
        ("model.safetensors", b"", "run/model.safetensors is damaged: "),
        ("model.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "run/model.safetensors is damaged: "),
    ],
)
def test_a_damaged_run_is_refused(
    capsys: pytest.CaptureFixture[str], run_dir: Path, name: str, content: bytes, told: str
) -> None:
    (run_dir / name).write_bytes(content)
    leaf = draw(Path("data"), 3, 4) / "class0" / "0.jpg"

    (found,) = refused(capsys, "predict", run_dir, leaf)

    assert found.startswith(told)


def test_weights_of_another_network_are_refused(capsys: pytest.CaptureFixture[str], run_dir: Path) -> None:
    save_file(build_model("cropshield_cnn", 3).state_dict(), run_dir / "model.safetensors")

    (told,) = refused(capsys, "predict", run_dir, draw(Path("data"), 3, 4))

    assert told.startswith("run/model.safetensors holds the weights of another network than tiny_cnn with 3 classes: ")


def test_evaluate_wants_photographs_of_the_same_classes(capsys: pytest.CaptureFixture[str], run_dir: Path) -> None:
    assert refused(capsys, "evaluate", run_dir) == ["run/config.toml names no photographs: give --data DIR"]
    (told,) = refused(capsys, "evaluate", run_dir, "--data", draw(Path("data"), 2, 4))
    assert told.endswith(
        "data holds none of the network's classes: it knows a, b, c, and the folders are class0, class1"
    )


def test_predict_names_what_it_cannot_read(capsys: pytest.CaptureFixture[str], run_dir: Path) -> None:
    leaf = draw(Path("data"), 2, 1) / "class0" / "0.jpg"
    Path("note.txt").write_text("no image")

    assert main(["predict", str(run_dir), "note.txt", str(leaf)]) == 2

    captured = capsys.readouterr()
    assert captured.err == "error: 1 of 2 photographs cannot be read\n"
    first, second = captured.out.splitlines()
    assert first.startswith("note.txt\tunreadable\t")
    assert second.startswith(f"{leaf}\t")


def test_predict_wants_photographs(capsys: pytest.CaptureFixture[str], run_dir: Path) -> None:
    Path("empty").mkdir()

    assert refused(capsys, "predict", run_dir, "empty") == ["no photographs in empty"]
    assert refused(capsys, "predict", run_dir, "gone.jpg") == ["gone.jpg: no such photograph or folder"]


def test_a_name_the_terminal_cannot_write_is_no_crash(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = draw(Path("data"), 2, 1) / "class0" / "0.jpg"
    leaf = leaf.rename(leaf.with_name("Blatt-ü-葉.jpg"))
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)

    assert main(["predict", str(run_dir), str(leaf)]) == 0

    terminal.flush()
    assert terminal.buffer.getvalue().startswith(b"data/class0/Blatt-\\xfc-\\u8449.jpg\t")  # type: ignore[attr-defined]


# sample-data


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--classes", "1"], "`classes` must be between 2 and 10, but got classes=1"),
        (["--per-class", "0"], "`per_class` must be between 3 and 100000, but got per_class=0"),
        (["--image-size", "1000000"], "`image_size` must be between 16 and 4096, but got image_size=1000000"),
        (
            ["--classes", "many"],
            "argument --classes: must be a whole number, but got 'many' (HELP tells more)",
        ),
    ],
)
def test_leaves_of_impossible_numbers_are_refused(
    capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    told = told.replace("HELP", spelled("sample-data", "--help"))  # which depends on the folder that one is in
    assert refused(capsys, "sample-data", "leaves", *flags) == [told]


def test_leaves_are_not_drawn_over_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    draw(Path("data"), 2, 1)

    (told,) = refused(capsys, "sample-data", "data")

    assert told.endswith("exists already and is not an empty folder: synthetic photographs need a new folder")


def program(*arguments: object, stdout: Any = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Runs the program itself, which ends without taking anything apart."""
    command = [sys.executable, "-m", "tune_cropshield", *map(str, arguments)]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, timeout=60)


def test_the_program_ends_with_the_commands_code_and_has_said_everything() -> None:
    script = Path(__file__)
    done = program("check-script", script, "--json")
    assert done.returncode == main(["check-script", str(script), "--json"])
    assert json.loads(done.stdout) is not None and not done.stderr
    refused_one = program("train", "--config", "missing.toml")
    assert refused_one.returncode == 2
    assert refused_one.stderr.splitlines() == ["error: missing.toml: no such file"]


def test_a_reader_who_has_gone_does_not_keep_the_program_from_ending() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        done = program("check-script", Path(__file__), "--json", stdout=nobody)
    assert not done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_output_that_does_not_fit_its_disk_is_told_and_not_taken_for_written() -> None:
    with open("/dev/full", "w") as full:
        done = program("check-script", Path(__file__), "--json", stdout=full)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr


# What somebody may have meant


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["serach", "--data", "x"], "no command is called 'serach'; did you mean search? known: search, "),
        (["Check_Script"], "no command is called 'Check_Script'; did you mean check-script? known: "),
        (["xyz"], "no command is called 'xyz'; known: search, "),
        (["search", "--epcohs", "3"], "unrecognized arguments: --epcohs 3; --epcohs: did you mean --epochs? ("),
        (["search", "--Data=x"], "unrecognized arguments: --Data=x; --Data: did you mean --data? ("),
        (["search", "more"], "unrecognized arguments: more (HELP tells more)"),
        (["search", "--device", "cdua"], "argument --device: there is no 'cdua'; did you mean cuda? known: auto, "),
        (["train", "--confg", "x"], "the following arguments are required: --config; --confg: did you mean --config?"),
        (["search", "--model", "ResNet-18"], "--model: unknown model 'ResNet-18'; did you mean resnet18"),
        (["search", "--model", "VGG11_bn"], "--model: unknown model 'VGG11_bn'; did you mean vgg11_bn? known: "),
        (["search", "--sampler", "Random"], "--sampler: no sampler is called 'Random'; did you mean random?"),
        (["search", "--space", "efficientnet-bo"], "--space efficientnet-bo: no such search space; did you mean eff"),
        (["--vresion"], "unrecognized arguments: --vresion; --vresion: did you mean --version? ("),
    ],
)
def test_who_misspells_a_name_is_told_which_one_was_meant(
    capsys: pytest.CaptureFixture[str], argv: list[str], told: str
) -> None:
    (line,) = refused(capsys, *argv)

    assert line.startswith(told.replace("HELP", spelled("search", "--help")))


def test_the_bare_program_shows_the_three_commands_that_one_needs_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0

    shown = capsys.readouterr()
    assert [line for line in shown.out.splitlines() if line.startswith("  ")] == [
        f"  {spelled('search')}",
        f"  {spelled('search', '--data', 'leaves')}",
        f"  {spelled('predict', 'results/runs/NAME/best', 'leaf.jpg')}",
    ]
    assert f"{spelled('--help')}  lists all commands" in shown.out and shown.err == ""


def test_vram_without_a_gpu_is_said_to_have_no_effect(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["search", "--dry-run", "--device", "cpu"]
    assert main([*flags, "--vram", "8GB"]) == 0
    assert (
        "--vram 8GB has no effect: it bounds a GPU's memory, and trials run on the CPU here" in capsys.readouterr().out
    )
    assert main([*flags, "--vram", "auto"]) == 0
    assert "has no effect" not in capsys.readouterr().out
