"""What doctor measures with: steps, photographs, memory's figures; and the command, from end to end on a CPU."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from tune_cropshield.api.doctor import chosen_photographs
from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig
from tune_cropshield.doctor.claims import Figure, Key, claims_about
from tune_cropshield.doctor.loading import measure_loading
from tune_cropshield.doctor.memory_figures import EstimatedMemory, Peak, memory_figures
from tune_cropshield.doctor.photographs import examine_photographs, most_common_side
from tune_cropshield.doctor.plain_step import PlainStep, StepSettings
from tune_cropshield.doctor.speeds import ratio
from tune_cropshield.errors import DataError
from tune_cropshield.memory.choose.pairs import Pair, Plan

CPU = torch.device("cpu")


def test_a_ratio_is_that_of_the_speeds_beside_it() -> None:
    assert ratio({"slow": [2.0, 20.0, 4.0], "fast": [1.0, 10.0, 4.0]}, "slow", "fast") == 1.0
    assert ratio({"slow": [6.0], "fast": [1.0, 2.0, 3.0]}, "slow", "fast") == 3.0
    assert ratio({"slow": [6.0]}, "slow", "fast") is None


def test_a_step_trains_and_its_clipping_bounds_the_norm() -> None:
    step = PlainStep(
        StepSettings("tiny_cnn", 32, "fp32", channels_last=True, micro_batch=4, accumulation=2, max_norm=0.01), CPU
    )
    before = [parameter.detach().clone() for parameter in step.parameters]

    step.backward()
    step.clip()
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in step.parameters])
    step.optimizer.zero_grad()
    step.window()

    assert float(norm) <= 0.01 * 1.001
    assert any(not torch.equal(old, new) for old, new in zip(before, step.parameters, strict=True))
    assert step.images_per_window == 8


@pytest.fixture
def untidy(tmp_path: Path) -> Path:
    """Two classes: five and two photographs, of which one is cut short, and one lies in both."""
    for label, count in (("rust", 5), ("scab", 1)):
        (tmp_path / label).mkdir()
        for index in range(count):
            Image.effect_noise((40 + 10 * index, 30), 60 + index).convert("RGB").save(tmp_path / label / f"{index}.jpg")
    shutil.copy(tmp_path / "rust" / "1.jpg", tmp_path / "scab" / "copy.jpg")
    whole = (tmp_path / "rust" / "4.jpg").read_bytes()
    (tmp_path / "rust" / "4.jpg").write_bytes(whole[: len(whole) // 2])
    return tmp_path


def test_broken_and_identical_photographs_are_found(untidy: Path) -> None:
    found = examine_photographs(DataConfig(dir=str(untidy)), seconds=30, threads=2)

    assert found.classes == {"rust": 4, "scab": 2}  # the broken one is none of them
    assert found.imbalance == 2.0
    assert (found.files, found.looked_at) == (7, 7)
    assert [path for path, _ in found.broken] == ["rust/4.jpg"]
    assert found.copies == (("rust/1.jpg", "scab/copy.jpg"),)
    assert (found.files_compared, found.across_classes) == (True, 1)
    assert found.near_copies == found.left_out == ()
    assert found.validation == {"rust": 1, "scab": 1}
    assert most_common_side(found) == "median 50 x 30 px, from 40 x 30 to 70 x 30"


def test_loading_is_measured_over_what_can_be_decoded(untidy: Path) -> None:
    loading = measure_loading(DataConfig(dir=str(untidy)), 32, CPU, seconds=1.0)

    assert loading.images == 6
    assert min(loading.stock_images_per_s, loading.store_images_per_s, loading.decode_images_per_s) > 0


def test_a_folder_of_which_nothing_can_be_read_is_told_about(tmp_path: Path) -> None:
    for label in ("rust", "scab"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.jpg").write_text("no image")

    with pytest.raises(DataError, match=r"none of 2 photographs in .* can be read"):
        measure_loading(DataConfig(dir=str(tmp_path)), 32, CPU, seconds=1.0)


def test_a_broken_photograph_is_no_validation_photograph_and_a_class_of_broken_ones_is_refused(tmp_path: Path) -> None:
    for label in ("rust", "scab"):
        (tmp_path / label).mkdir()
        for index in range(15):
            Image.effect_noise((40, 30), 60).convert("RGB").save(tmp_path / label / f"{index}.jpg")
    (tmp_path / "rust" / "3.jpg").write_bytes(b"")
    (tmp_path / "scab" / "empty.jpg").write_bytes(b"")
    data = DataConfig(dir=str(tmp_path))
    found = examine_photographs(data, seconds=30, threads=2)
    assert found.validation == {"rust": 1, "scab": 2}
    assert (found.copies, len(found.broken)) == ((), 2)
    for file in (tmp_path / "rust").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no photograph of 'rust' in .* can be read: rust/0.jpg \(not an image\)"):
        examine_photographs(data, seconds=30, threads=2)


def test_photographs_are_read_as_a_configuration_or_a_space_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "leaves"
    for crop in ("apple", "corn"):
        for disease in ("healthy", "rust"):
            (root / crop / disease).mkdir(parents=True)
            Image.effect_noise((64, 32), 60).convert("RGB").save(root / crop / disease / "0.jpg")
    said = '[data]\nclass_depth = 2\nmerge = {"corn/healthy" = "apple/healthy"}\n'
    (tmp_path / "config.toml").write_text(said)
    (tmp_path / "space.toml").write_text(said + '[space]\nfit = {choice = ["crop", "pad"]}\n')

    of_config, fits = chosen_photographs({"data": root}, tmp_path / "config.toml", None)
    found = examine_photographs(of_config, 30, 2, fits)
    assert found.classes == {"apple/healthy": 2, "apple/rust": 1, "corn/rust": 1}
    assert len(found.long) == 1
    assert measure_loading(of_config, 32, CPU, seconds=0.5).images == 4
    assert examine_photographs(of_config.model_copy(update={"fit": "pad"}), 30, 2).long == ()
    of_space, fits = chosen_photographs({"data": root}, None, tmp_path / "space.toml")
    assert fits == ("crop", "pad")
    assert examine_photographs(of_space, 30, 2, fits).long == ()

    both = ["--config", str(tmp_path / "config.toml"), "--space", str(tmp_path / "space.toml")]
    assert main(["doctor", "--data", str(root), *both]) == 2
    assert capsys.readouterr().err == (
        "error: --config and --space both say how photographs are read: give one of them\n"
    )
    (tmp_path / "config.toml").write_text("[data]\nclass_depth = 3\n")
    assert main(["doctor", "--data", str(root), "--config", str(tmp_path / "config.toml")]) == 2
    assert "class_depth" in capsys.readouterr().err


class KnownMemory:
    """Memory with figures that can be checked by hand: 100 MiB and 40 MiB an image in fp16, 80 in fp32."""

    source = "measured"
    why = "no room"

    def peak(self, model: str, precision: str, micro_batch: int) -> Peak | None:
        allocated = 100.0 + {"fp16": 40.0, "fp32": 80.0}[precision] * micro_batch
        return Peak(allocated, allocated + 24)

    def plan(self, model: str, card: str) -> Plan | None:
        if card == "rtx3050-laptop":
            return None
        return Plan(
            {32: (Pair(16, 2), Pair(32, 1)), 64: (Pair(64, 1),)}, "probe", 7000, 500, fixed_mib=100, per_image_mib=40
        )


def test_memory_claims_are_answered_from_peaks_and_plans() -> None:
    model = "efficientnet_b0"
    figures = memory_figures((model,), claims_about((model,)), KnownMemory(), lambda what: None)  # type: ignore[arg-type]
    values = {(key.quantity, key.pair, key.card): figure.value for key, figure in figures.items()}

    assert values["amp_memory", None, None] == pytest.approx(100 * (1 - 740 / 1380))
    assert values["amp_batch", None, None] == 2.0  # 32 images in fp16 take 1380 MiB, as 16 do in fp32
    assert values["accumulation_memory", None, None] == pytest.approx(100 * (1 - 740 / 1380))
    assert values["vram", (16, 2), "rtx4060-laptop"] == (740 + 24 + 500) / 1024
    assert values["planned_batch", (16, 2), "rtx4060-laptop"] == 32
    assert values["largest_batch", None, "rtx4060-laptop"] == 64
    assert values["formula", (16, 4), "rtx4060-laptop"] == 2816
    assert values["per_image", None, None] == 40
    assert figures[Key("vram", model, (8, 4), "rtx3050-laptop")] == Figure(None, "measured", "no room")


def test_the_estimate_answers_for_memory_where_there_is_no_gpu() -> None:
    memory = EstimatedMemory()
    half, full = memory.peak("tiny_cnn", "fp16", 16), memory.peak("tiny_cnn", "fp32", 16)

    assert half is not None and full is not None and 0.4 < half.allocated_mib / full.allocated_mib < 0.8
    assert memory.source == "estimate"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: it would take minutes")
def test_the_command_examines_and_judges_on_a_cpu(
    home: Path, drawn_leaves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--data", str(drawn_leaves), "--model", "tiny_cnn", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    claims = {claim["key"]: claim for claim in found["claims"]}
    assert found["device"] == "cpu" and found["machine"]["gpu"] is None
    assert found["photographs"]["files"] == 120 and found["photographs"]["drawn"] is False
    assert claims["amp-memory"]["source"] == "estimate" and claims["amp-memory"]["places"] == [
        "GUIDE 1002",
        "GUIDE 1005",
    ]
    assert claims["clip-1"]["source"] == "measured" and claims["clip-1"]["value"] > 0
    assert claims["fp16-largest"]["verdict"] == "holds: 65504"
    assert "vram-4060-b0-32" not in claims  # of another network
    assert claims["amp-speed"]["value"] is None  # a rule about GPUs: what bf16 gives here is told once
    assert claims["amp-on-cpu"]["value"] == pytest.approx(
        found["steps"]["tiny_cnn"]["images_per_s"]["bf16 few"] / found["steps"]["tiny_cnn"]["images_per_s"]["fp32 few"]
    )


def test_wrong_photographs_or_networks_are_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--data", str(tmp_path / "gone")]) == 2
    assert capsys.readouterr().err == f"error: there is no folder {str(tmp_path / 'gone')!r}\n"
    assert main(["doctor", "--model", "resnet51"]) == 2
    assert capsys.readouterr().err.startswith("error: --model: unknown model 'resnet51'; did you mean resnet50")


def test_copies_that_are_no_identical_files_a_given_split_and_what_is_left_out_are_found(tmp_path: Path) -> None:
    for side, count in (("train", 4), ("val", 2)):
        for label in ("rust", "scab"):
            (tmp_path / side / label).mkdir(parents=True)
            for index in range(count):
                noise = Image.effect_noise((8, 8), 90).resize((64, 64))
                noise.convert("RGB").save(tmp_path / side / label / f"{index}.png")
    mirrored = Image.open(tmp_path / "train" / "rust" / "0.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(tmp_path / "val" / "rust" / "0.png")
    (tmp_path / "val" / "rust" / "notes.txt").write_text("")

    found = examine_photographs(DataConfig(dir=str(tmp_path)), seconds=30, threads=2)

    assert found.near_copies == (("train/rust/0.png", "val/rust/0.png"),)
    assert found.copies == ()
    assert found.given_split
    assert found.validation == {"rust": 2, "scab": 2}
    assert [it.path for it in found.left_out] == ["val/rust/notes.txt"]


def test_groups_count_as_one_among_the_photographs_that_a_search_would_validate_on(tmp_path: Path) -> None:
    for label in ("rust", "scab"):
        for index in range(24):
            folder = tmp_path / label / f"plant{index // 4}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((40, 30), 60).convert("RGB").save(folder / f"{index}.jpg")
    of_one = examine_photographs(DataConfig(dir=str(tmp_path)), seconds=30, threads=2)
    assert of_one.validation == {"rust": 2, "scab": 2}
    of_plants = examine_photographs(DataConfig(dir=str(tmp_path), group="folder"), seconds=30, threads=2)
    assert of_plants.validation == {"rust": 4, "scab": 4}
