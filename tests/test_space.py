"""Search spaces: the shipped ones hold, and every fault of another is told at once."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from tune_cropshield.config.domain import Domain
from tune_cropshield.config.space_file import load_space
from tune_cropshield.errors import ConfigError
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.folder import save_settings
from tune_cropshield.search.pruning import build_pruning
from tune_cropshield.search.start_points import start_points
from tune_cropshield.search.trial_settings import effective_batches, settings_mark

SPACES = Path(__file__).parents[1] / "search_spaces"
SHIPPED = [
    "cropshield_cnn",
    "demo",
    "efficientnet_b0",
    "resnet50_fine_tuning",
    "resnet50_onecycle",
    "small_networks",
    "tiny_cnn",
]


def faults(folder: Path, text: str, overrides: dict[str, dict[str, Any]] | None = None) -> list[str]:
    """Returns what is said of a search space of this content, without its path."""
    path = folder / "space.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_space(path, overrides)
    return [fault.replace(f"{path}: ", "") for fault in error.value.faults]


def test_a_search_may_be_gone_on_with_longer_but_not_with_other_trials(tmp_path: Path) -> None:
    file = SPACES / "demo.toml"
    mark = settings_mark(load_space(file, {}))
    assert (
        settings_mark(
            load_space(file, {"search": {"trials": 99, "time_budget": "2h", "trials_per_gpu": 2, "vram": "8GB"}})
        )
        == mark
    )
    for change in ({"trial": {"image_size": 40}}, {"search": {"epochs": 5}}, {"data": {"split_seed": 7}}):
        assert settings_mark(load_space(file, change)) != mark
    save_settings(tmp_path, load_space(file, {}), "search")
    assert settings_mark(load_space(tmp_path / "search.toml", {})) == mark


@pytest.mark.parametrize(
    ("name", "mark"),
    [("demo", "48327061a3f2de8d"), ("efficientnet_b0", "0308125f5b6151da"), ("resnet50_onecycle", "d2db774c24b40f89")],
)
def test_a_space_that_uses_no_newer_setting_has_the_identity_that_earlier_versions_gave_it(
    name: str, mark: str
) -> None:
    assert settings_mark(load_space(SPACES / f"{name}.toml", {})) == mark


@pytest.mark.parametrize("setting", ["unfreeze_epochs = 1", "backbone_lr_factor = 0.5", "layer_decay = 0.5"])
def test_a_newer_setting_that_is_used_belongs_to_the_identity(tmp_path: Path, setting: str) -> None:
    marks = []
    for line in (setting, setting.split(" = ")[0] + (" = 0" if "epochs" in setting else " = 1.0"), ""):
        (tmp_path / "space.toml").write_text(f"[trial]\n{line}\n[space]\nlr = {{log = [1e-4, 1e-2]}}")
        marks.append(settings_mark(load_space(tmp_path / "space.toml")))
    assert marks[0] != marks[1] == marks[2]


def test_the_shipped_spaces_are_those_tested_here() -> None:
    assert sorted(path.stem for path in SPACES.glob("*.toml")) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_space_survives_pickle(name: str) -> None:
    space = load_space(SPACES / f"{name}.toml")

    assert pickle.loads(pickle.dumps(space)) == space
    for domain in space.space.values():
        assert pickle.loads(pickle.dumps(domain.distribution())) == domain.distribution()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_space_builds_a_trial_at_both_ends_of_every_range(name: str) -> None:
    space = load_space(SPACES / f"{name}.toml")

    for parameter, domain in space.space.items():
        for value in domain.ends:
            assert getattr(space.trial_config({parameter: value}), parameter) == value


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("demo", {"lr": 1e-4, "max_norm": "none", "weight_decay": 1e-4, "effective_batch": 32}),
        (
            "cropshield_cnn",
            {"lr": 1e-4, "max_norm": "none", "weight_decay": 1e-4, "effective_batch": 32, "label_smoothing": 0.0},
        ),
        ("efficientnet_b0", {"lr": 1e-4, "max_norm": "none", "weight_decay": 1e-4, "effective_batch": 32}),
        ("resnet50_onecycle", {"lr": 0.1, "max_norm": 1.0, "weight_decay": 1e-4, "effective_batch": 64}),
    ],
)
def test_trial_0_of_a_shipped_space_is_the_guides_setting(name: str, setting: dict[str, object]) -> None:
    space = load_space(SPACES / f"{name}.toml")

    assert start_points(space, plan_for_cpu(effective_batches(space)))[0] == setting


def test_every_fault_of_a_space_is_told_at_once_with_its_key(tmp_path: Path) -> None:
    text = """
        tiral = {}
        [data]
        val_share = 0.6
        test_share = 0.6
        [trial]
        model = "tiny_cnn"
        image_size = 3
        lr = 1e-3
        seed = 1
        [space]
        lr = {log = [1e-3, 1e-5]}
        weight_decay = {log = [1, 2, 3]}
        dropout = {uniform = [0.1, 1.5]}
        max_norm = {choice = ["none", nan]}
        clip_value = {choice = ["none", 1.0]}
        agc = {choice = ["none", 0.1]}
        label_smoothing = 0.1
        [search]
        trials = 0
        grace_epochs = 30
        [[start]]
        dropout = 3.0
        lrr = 1
    """

    assert faults(tmp_path, text) == [
        "space.weight_decay.log: must be a list of two numbers, [low, high], but got [1, 2, 3]",
        (
            "space.max_norm.choice: must be a list whose items are strings, finite numbers, true or false, but got "
            '["none", NaN]'
        ),
        "space.label_smoothing: must be a range or a list of choices, like {log = [1e-5, 1e-2]}, but got 0.1",
        "search.trials: must be at least 1, but got 0",
        "tiral: unknown key; did you mean trial? known here: data, trial, space, search, baseline, start",
        "data: `val_share + test_share < 1` must hold, but got 0.6 + 0.6",
        "space.lr: `low < high` must hold, but got low=0.001, high=1e-05",
        "search: `grace_epochs <= epochs` must hold, but got 30 and 25",
        "trial.seed: is set by [search] seed",
        "space.lr: is set in [trial] too: it is either fixed or searched",
        "start.0.dropout: 3.0 is not in the space (0.1 to 1.5)",
        (
            "start.0.lrr: is not searched; did you mean lr? searched here: lr, weight_decay, dropout, max_norm, "
            "clip_value, agc"
        ),
        "trial.image_size: must be at least 16, but got 3",
        "space.dropout: must be below 1, but got 1.5",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trial = 3", "trial: must be a table, but got 3"),
        ("space = []", "space: must be a table, but got []"),
        ("search = 'x'", 'search: must be a table, but got "x"'),
        ("start = {}", "start: must be [[start]] tables of parameters and values, like lr = 1e-4, but got {}"),
        ("[space]\nlr = {log = [0.0, 1.0]}", "space.lr: a log range must start above 0, but got low=0.0"),
        ("[space]\nlr = {uniform = [1.0, 1.0]}", "space.lr: `low < high` must hold, but got low=1.0, high=1.0"),
        ("[space]\nlr = {}", "space.lr: give exactly one of log, uniform, int or choice, but got none"),
        (
            "[space]\nlr = {log = [1e-5, 1e-2], choice = [1]}",
            "space.lr: give exactly one of log, uniform, int or choice, but got log and choice",
        ),
        ("[space]\nlr = {choice = []}", "space.lr: there must be choices, all different, but got []"),
        ("[space]\nlr = {choice = [1, 1.0]}", "space.lr: there must be choices, all different, but got [1, 1.0]"),
        ("[space]\nlr = {choice = ['1e-4']}", 'space.lr: must be a number, but got "1e-4"'),
        ("[space]\ndropout = {uniform = [0.5, 1.5]}", "space.dropout: must be below 1, but got 1.5"),
        (
            "[space]\neffective_batch = {int = [1, 1000000000]}",
            "space.effective_batch: must be at most 65536, but got 1000000000",
        ),
        (
            "[space]\neffective_batch = {int = [1.5, 3]}",
            "space.effective_batch.int: must be a list of two whole numbers, [low, high], but got [1.5, 3]",
        ),
        (
            "[space]\nmax_norm = {choice = ['none', 1.0]}\nagc = {choice = ['none', 0.1]}",
            "space.max_norm and space.agc: at most one kind of clipping can be on, but got max_norm and agc",
        ),
        (
            "[trial]\nmixup = 0.2\n[space]\neffective_batch = {int = [16, 32]}",
            (
                "space.effective_batch: mixup and cutmix mix pairs of images, so micro_batch and effective_batch must "
                "be even, but got 17 and 17"
            ),
        ),
        (
            "[search]\nvram = '8 apples'",
            (
                "search.vram: '8 apples' is not an amount of GPU memory: write 8, 8GB, 8GiB, 8000MB, auto or "
                "rtx4060-laptop, rtx3050-laptop"
            ),
        ),
        ("[search]\ntime_budget = 'soon'", "search.time_budget: 'soon' is not a duration: write 45s, 90m, 2h or 1h30m"),
        (
            "[search]\ntrials_per_gpu = 'x'",
            'search.trials_per_gpu: must be a whole number from 1 to 1024, or "auto", but got "x"',
        ),
        ("[search]\nreduction_factor = 1.0000001", "search.reduction_factor: must be at least 1.5, but got 1.0000001"),
        (
            "[[start]]\nlr = [1]",
            'start: must be [[start]] tables of parameters and values, like lr = 1e-4, but got [{"lr": [1]}]',
        ),
        (
            "[trial]\nwarmup_epochs = 5.0\n[search]\ngrace_epochs = 2",
            "search: `grace_epochs >= warmup_epochs` must hold (no trial is stopped while it warms up), but got "
            "2 and 5",
        ),
        (
            "[trial]\nunfreeze_epochs = 5\n[search]\ngrace_epochs = 5",
            "search: `grace_epochs > unfreeze_epochs` must hold (no trial is stopped while its backbone is frozen), "
            "but got 5 and 5",
        ),
        (
            "[space]\nunfreeze_epochs = {int = [0, 8]}\n[search]\nepochs = 8",
            "space.unfreeze_epochs: `unfreeze_epochs < epochs` must hold, but got 8 and 8: lower it or train "
            "longer; freeze_backbone = true trains the head alone throughout",
        ),
        (
            "[trial]\nfreeze_backbone = true\n[space]\nlayer_decay = {uniform = [0.6, 1.0]}",
            "space.layer_decay: layer_decay is only used with freeze_backbone = false, but freeze_backbone is true",
        ),
        ("[space]\nlayer_decay = {uniform = [0.0, 1.0]}", "space.layer_decay: must be above 0, but got 0.0"),
        (
            "[space]\nbackbone_lr_factor = {log = [0.1, 10.0]}",
            "space.backbone_lr_factor: must be at most 1, but got 10.0",
        ),
    ],
)
def test_a_fault_of_a_space_is_told_in_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    assert faults(tmp_path, text) == [told]


def test_a_parameter_that_cannot_be_searched_is_told_with_those_that_can(tmp_path: Path) -> None:
    told = faults(tmp_path, "[space]\nlearning_rate = {log = [1e-5, 1e-2]}\nprecision = {choice = ['fp16', 'fp32']}")

    known = "known here: model, head, pretrained, freeze_backbone, dropout, image_size, augment, mixup, "
    assert told[0].startswith(f"space.learning_rate: cannot be searched; {known}")
    assert told[1].startswith(f"space.precision: is the same for all trials of a search; {known}")


@pytest.mark.parametrize(
    ("text", "first_step", "pruning_steps"),
    [
        ("[search]\nepochs = 25", 7, (7, 14)),  # a quarter, rounded up; then twice as many
        ("[search]\nepochs = 8", 2, (2, 4)),
        ("[search]\nepochs = 1", 1, ()),
        ("[search]\nepochs = 25\ngrace_epochs = 1\nreduction_factor = 3", 1, (1, 3, 9)),
        ("[trial]\nwarmup_epochs = 5.5\n[search]\nepochs = 8", 6, (6,)),  # no trial is stopped while it warms up
        ("[trial]\nunfreeze_epochs = 5\n[search]\nepochs = 8", 6, (6,)),  # nor while its backbone is frozen
        ("[space]\nunfreeze_epochs = {choice = [0, 4]}\n[search]\nepochs = 16", 5, (5, 10)),
        (
            "[space]\nfreeze_backbone = {choice = [true, false]}\n[space.when.freeze_backbone.false]\n"
            "layer_decay = {uniform = [0.5, 1.0]}\nunfreeze_epochs = {int = [0, 4]}\n[search]\nepochs = 16",
            5,
            (5, 10),
        ),
        (
            '[space]\noptimizer = {choice = ["adamw", "sgd"]}\n[space.when.optimizer.sgd]\n'
            "unfreeze_epochs = {int = [2, 4]}\n[search]\nepochs = 16",
            5,
            (5, 10),
        ),
    ],
)
def test_where_nothing_is_said_trials_are_judged_from_a_quarter_of_their_epochs_on_and_after_the_warm_up(
    tmp_path: Path, text: str, first_step: int, pruning_steps: tuple[int, ...]
) -> None:
    (tmp_path / "space.toml").write_text(text)
    search = load_space(tmp_path / "space.toml").search
    assert (search.first_step, search.pruning_steps) == (first_step, pruning_steps)


def test_values_given_as_flags_are_told_under_the_flags(tmp_path: Path) -> None:
    overrides = {"search": {"trials": 0, "epochs": 1, "time_budget": "x"}, "trial": {"image_size": 3}}

    assert faults(tmp_path, "[search]\ngrace_epochs = 2", overrides) == [
        "--trials: must be at least 1, but got 0",
        "--time-budget: 'x' is not a duration: write 45s, 90m, 2h or 1h30m",
        "--image-size: must be at least 16, but got 3",
    ]


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize("pruning", ["asha", "ray-asha", "none"])
@pytest.mark.parametrize("parts", ["", "folds = 2", "replicates = 3"])
def test_a_flag_may_make_trials_shorter_than_the_files_grace_epochs(
    tmp_path: Path, epochs: int, pruning: str, parts: str
) -> None:
    text = f'[trial]\nwarmup_epochs = 5.0\n[search]\nepochs = 25\ngrace_epochs = 5\npruning = "{pruning}"\n{parts}\n'
    (tmp_path / "space.toml").write_text(text)
    search = load_space(tmp_path / "space.toml", {"search": {"epochs": epochs}}).search

    assert search.first_step == epochs  # the warm-up takes all of it
    build_pruning(search).judge(0, epochs, 0.5, 1.0)
    assert load_space(tmp_path / "space.toml", {"search": {"epochs": 6}}).search.first_step == 5  # as the file says


def test_a_file_that_contradicts_itself_is_refused_whatever_its_length(tmp_path: Path) -> None:
    assert faults(tmp_path, "[search]\nepochs = 1\ngrace_epochs = 2") == [
        "search: `grace_epochs <= epochs` must hold, but got 2 and 1"
    ]


def test_a_domain_gives_its_nearest_value_for_anything() -> None:
    assert Domain(uniform=(0.1, 0.5)).nearest(None) == 0.1
    assert Domain(log=(1e-5, 1e-3)).nearest(1.0) == 1e-3
    assert Domain(int=(2, 8)).nearest(3.4) == 3
    assert Domain(int=(2, 8)).nearest(99) == 8
    assert Domain(choice=("none", 0.5, 2.0)).nearest(1.9) == 2.0
    assert Domain(choice=("none", 0.5)).nearest("none") == "none"
    assert Domain(choice=("a", "b")).nearest(1.0) == "a"


@pytest.mark.parametrize(
    ("domain", "loosest"),
    [
        (Domain(log=(0.1, 10.0)), 10.0),
        (Domain(uniform=(0.5, 2.0)), 2.0),
        (Domain(int=(2, 8)), 8),
        (Domain(choice=(0.5, 5.0, 1.0)), 5.0),
        (Domain(choice=("some", 0.5, 1.0)), 1.0),
        (Domain(choice=("balanced",)), "balanced"),
    ],
    ids=lambda value: str(value),
)
def test_nearest_to_no_bound_is_the_loosest(domain: Domain, loosest: object) -> None:
    assert domain.nearest("none") == loosest


def test_a_domain_holds_only_what_can_be_proposed() -> None:
    assert Domain(int=(1, 3)).holds(2)
    assert not Domain(int=(1, 3)).holds(1.5)
    assert not Domain(int=(1, 3)).holds(True)
    assert not Domain(choice=(0, 1)).holds(True)
    assert not Domain(log=(0.1, 1.0)).holds("0.5")


FITS = """
[space]
fit = {choice = ["crop", "pad", "squash"]}
lr = {log = [1e-4, 1e-2]}
[search]
epochs = 3
grace_epochs = 1
"""


def test_how_long_photographs_are_fitted_is_searched_though_it_stands_in_data(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(FITS)
    space = load_space(tmp_path / "space.toml", {})
    assert space.fits == ("crop", "pad", "squash")
    assert space.data_config({"fit": "pad", "lr": 1e-3}).fit == "pad"
    assert space.trial_config({"fit": "pad", "lr": 1e-3}).lr == 1e-3
    assert start_points(space, plan_for_cpu((32,)))[0]["fit"] == "crop"  # the reference setting's

    save_settings(tmp_path, space, "search")
    assert load_space(tmp_path / "search.toml", {}).fits == ("crop", "pad", "squash")
    assert load_space(SPACES / "demo.toml", {}).fits == ("crop",)
    fixed = load_space(SPACES / "demo.toml", {"data": {"fit": "squash"}})
    assert fixed.fits == ("squash",)
    assert settings_mark(fixed) != settings_mark(load_space(SPACES / "demo.toml", {}))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            '[space]\nfit = {choice = ["crop", "stretch"]}',
            "space.fit: must be one of 'crop', 'pad' or 'squash', but got \"stretch\"",
        ),
        (
            '[data]\nfit = "pad"\n[space]\nfit = {choice = ["crop", "pad"]}',
            "space.fit: is set in [data] too: it is either fixed or searched",
        ),
        (
            '[search]\ndevice = "gpu"',
            "search.device: must be one of 'auto', 'cpu' or 'cuda', but got \"gpu\"; did you mean cuda?",
        ),
        ('[data]\nfit = "cut"', "data.fit: must be one of 'crop', 'pad' or 'squash', but got \"cut\""),
        ("[space]\nfit = {log = [0.1, 1.0]}", "space.fit: must be one of 'crop', 'pad' or 'squash', but got 0.1"),
    ],
)
def test_a_wrong_fit_is_told(tmp_path: Path, text: str, fault: str) -> None:
    assert any(found.startswith(fault) for found in faults(tmp_path, text)), faults(tmp_path, text)
