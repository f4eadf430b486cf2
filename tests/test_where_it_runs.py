"""A search finds this package, and a user's own modules, in Ray's processes too, however it is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[1]
SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
augment = "none"
[space]
lr = {log = [1e-4, 3e-2]}
[baseline]
[search]
trials = 2
epochs = 1
grace_epochs = 1
trials_per_gpu = 1
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter that has all packages of this one but the project itself."""
    venv.create(tmp_path / "venv", symlinks=True)
    inside = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=inside))
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(folder).iterdir():
            if "tune_cropshield" not in entry.name and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    return Path(sysconfig.get_path("scripts", "venv", vars=inside)) / "python"


def run(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `python` in `folder`, without what this process's environment says of where modules lie."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(
        [str(python), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def assert_both_trials_finished(done: subprocess.CompletedProcess[str], out: Path) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    table = (out / "trials.csv").read_text()
    assert table.count(",COMPLETE,") + table.count(",PRUNED,") == 2


def test_from_a_checkout_that_is_not_installed(python: Path, drawn_leaves: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "tune_cropshield", checkout / "tune_cropshield")
    (checkout / "space.toml").write_text(SPACE)
    assert "No module named 'tune_cropshield'" in run(python, tmp_path, "-c", "import tune_cropshield").stderr

    done = run(
        python,
        checkout,
        *("-m", "tune_cropshield", "search", "--space", "space.toml", "--data", str(drawn_leaves), "--out", "out"),
    )

    assert_both_trials_finished(done, checkout / "out")


def test_from_an_installed_wheel(python: Path, drawn_leaves: Path, tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    installed = run(python, tmp_path, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    zipfile.ZipFile(wheel).extractall(installed)  # a wheel of pure Python is installed so
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    done = run(
        python,
        elsewhere,
        *("-m", "tune_cropshield", "search", "--space", "demo.toml", "--data", str(drawn_leaves), "--out", "out"),
        *("--image-size", "32", "--trials", "2", "--epochs", "2", "--trials-per-gpu", "1"),
    )

    assert_both_trials_finished(done, elsewhere / "out")


def test_from_a_users_own_script_with_a_module_of_his_own(python: Path, drawn_leaves: Path, tmp_path: Path) -> None:
    elsewhere, modules = tmp_path / "elsewhere", tmp_path / "modules"
    for folder in (elsewhere, modules):
        folder.mkdir()
    (elsewhere / "space.toml").write_text(SPACE)
    (modules / "my_worker.py").write_text(
        "from tune_cropshield.search.worker import TrialWorker\nclass MyWorker(TrialWorker):\n    pass\n"
    )
    (elsewhere / "my_search.py").write_text(f"""
import sys
from pathlib import Path

sys.path[:0] = [{str(ROOT)!r}, "../modules"]

from tune_cropshield.config.space_file import load_space
from tune_cropshield.search.context import begin_search
from tune_cropshield.search.folder import make_folder
from tune_cropshield.search.prepare import prepare
from tune_cropshield.search.run import run_search
from tune_cropshield.search.views.view import SearchView


def my_worker():
    from my_worker import MyWorker

    return MyWorker


if __name__ == "__main__":
    view, out = SearchView(), Path("out").absolute()
    found = prepare(load_space(Path("space.toml"), {{"data": {{"dir": {str(drawn_leaves)!r}}}}}), Path("cache"), view)
    make_folder(out)
    run_search(begin_search(found, out, view, resume=False, command=sys.argv), my_worker)
""")

    done = run(python, elsewhere, "my_search.py")

    assert_both_trials_finished(done, elsewhere / "out")
