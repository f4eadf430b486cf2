"""An examination for people: four short tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tune_cropshield.config.units import counted
from tune_cropshield.data.background import WARNING
from tune_cropshield.data.class_sizes import always_the_largest_line, is_imbalanced, sizes_line, validation_line
from tune_cropshield.data.left_out import left_out_lines
from tune_cropshield.data.look_alikes import look_alike_lines
from tune_cropshield.doctor.claims import REFERENCE_WORKERS
from tune_cropshield.doctor.examination import Examination
from tune_cropshield.doctor.photographs import Photographs, most_common_side
from tune_cropshield.doctor.verdicts import Verdict
from tune_cropshield.files import printable

NAMED_AT_MOST = 5  # broken files and copies
INTRODUCTION = (
    "The CropShield training guide (github.com/VeerbhadraMahant/CropShieldAI) is a pair of documents on training leaf "
    "classifiers on laptops. Below, its rules of thumb stand beside what was found here; GUIDE 6 is line 6 of its "
    "training_performance_guide.md, NOTES 33 line 33 of its gradient_clipping_notes.md."
)
RULES = "rules of thumb of the CropShield training guide"


def show(found: Examination, console: Console) -> None:
    """Prints the examination."""
    console.print(_two_columns("machine", _machine(found)))
    console.print()
    console.print(_two_columns("photographs", _photographs(found.photographs, found.drawn)))
    console.print()
    console.print(_two_columns("images per second", _speeds(found)))
    known = [verdict for verdict in found.verdicts if verdict.figure.value is not None]
    if known:
        console.print()
        console.print(INTRODUCTION)
    for model in sorted({verdict.model for verdict in known}):
        console.print()
        console.print(_claims(model, [verdict for verdict in known if verdict.model == model]))
    judged = [verdict.holds for verdict in known if verdict.holds is not None]
    console.print()
    device = "GPU" if found.device == "cuda" else "CPU"
    console.print(
        f"{counted(len(judged), 'rule')} of thumb could be checked on this {device}: {sum(judged)} "
        f"{'holds' if sum(judged) == 1 else 'hold'}. Took "
        f"{found.seconds:.0f} s."
    )
    if found.device == "cpu":
        console.print(
            "Memory is an estimate for a GPU (there is none to measure here); speeds are those of this CPU with "
            "small images."
        )


def _machine(found: Examination) -> list[tuple[str, str]]:
    machine = found.machine
    gpu = "none that PyTorch can use"
    if machine.gpu is not None and machine.vram_mib is not None and machine.vram_free_mib is not None:
        others = f" (of {machine.gpus}, the one with the least free memory)" if machine.gpus > 1 else ""
        gpu = (
            f"{machine.gpu}{others}, driver {machine.driver}, {machine.vram_free_mib:.0f} of {machine.vram_mib:.0f} "
            "MiB free"
        )
    return [
        ("GPU", gpu),
        ("CPU", f"{counted(machine.cores, 'core')} usable, {machine.system}"),
        (
            "software",
            ", ".join(
                [f"Python {machine.python}", *(f"{name} {version}" for name, version in machine.versions.items())]
            ),
        ),
        ("disk", f"{machine.disk_free_gib:.0f} GiB free for the cache in {machine.cache}"),
    ]


def _photographs(photographs: Photographs, drawn: bool) -> list[tuple[str, str]]:
    classes = photographs.classes
    whole = (
        "all"
        if photographs.looked_at == photographs.files
        else f"{photographs.looked_at} of {photographs.files}, chosen at random,"
    )
    broken = f"{len(photographs.broken)} ({whole} were checked)" + _named(
        [f"{path} ({why})" for path, why in photographs.broken]
    )
    copies = f"groups of identical files: {len(photographs.copies)}"
    copies += f", {photographs.across_classes} of them in more than one class" if photographs.across_classes else ""
    copies += "" if photographs.files_compared else ", as far as there was time to compare"
    near = f"groups of turned, mirrored, rescaled or compressed ones, or copies by name: {len(photographs.near_copies)}"
    near += "" if photographs.looked_at == photographs.files else f" among the {photographs.looked_at} decoded"
    split = "your own split: " if photographs.given_split and photographs.notes else ""
    split = split or ("the folders' own split: " if photographs.given_split else "")
    rows = [
        ("folder", photographs.folder + (" (synthetic: no --data was given)" if drawn else "")),
        *(("labels", line) for line in photographs.notes),
        ("classes", f"{len(classes)} of {sum(classes.values())} files; {sizes_line(classes)}"),
        ("to beat", always_the_largest_line(classes)),
        ("validation", split + validation_line(photographs.validation)),
        ("sizes", most_common_side(photographs)),
        ("broken", broken),
        ("copies", copies + _named([" = ".join(group) for group in photographs.copies])),
        ("near-copies", near + _named([" ~ ".join(group) for group in photographs.near_copies])),
        *((("background", photographs.background.line),) if photographs.background is not None else ()),
        *(("names", line) for line in look_alike_lines(classes)),
        *(("folder", line) for line in left_out_lines(photographs.left_out)),
    ]
    rows += [("advice", line) for line in photographs.long]
    if photographs.background is not None and photographs.background.tells_too_much:
        rows.append(("advice", WARNING))
    if is_imbalanced(classes):
        rows.append(
            (
                "advice",
                'class_weights = "balanced" and sampling = "balanced" give small classes more weight, and '
                "--metric val_macro_f1 chooses by all classes alike",
            )
        )
    return rows


def _named(things: list[str]) -> str:
    if not things:
        return ""
    return ": " + ", ".join(things[:NAMED_AT_MOST]) + (", ..." if len(things) > NAMED_AT_MOST else "")


def _speeds(found: Examination) -> list[tuple[str, str]]:
    loading = found.loading
    how = f"with one process (PIL and torchvision transforms, {loading.image_size} px)"
    gain = f"augmented on the device: {loading.gain:.1f} times as fast"
    rows = [
        ("PyTorch's loader", f"{_rate(loading.stock_images_per_s)} {how}"),
        ("this program", f"{_rate(loading.store_images_per_s)}, {gain}"),
        ("decoding, once", f"{_rate(loading.decode_images_per_s)} with one thread"),
    ]
    for model, speeds in found.speeds.items():
        rows.append((model, speeds.how))
        rows += [(f"  {name}", _rate(rate)) for name, rate in speeds.images_per_s.items()]
    if found.device == "cuda" and found.speeds:
        fastest = max(max(speeds.images_per_s.values()) for speeds in found.speeds.values())
        workers = min(REFERENCE_WORKERS, found.machine.cores)
        fed = loading.stock_images_per_s * workers
        if fed < fastest:
            bound = (
                f"loading images: {workers} processes of PyTorch's loader give {fed:.0f}, the training step could "
                f"take {fastest:.0f}"
            )
            rows.append(("bottleneck", bound))
    return rows


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:.0f}" if images_per_s >= 100 else f"{images_per_s:.1f}"


def _two_columns(title: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, title=title, title_justify="left", title_style="bold")
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(printable(value)))
    return table


def _claims(model: str, verdicts: list[Verdict]) -> Table:
    table = Table(box=None, pad_edge=False, title=f"{RULES} about {model}", title_justify="left", title_style="bold")
    table.add_column("rule", overflow="fold")
    table.add_column("the guide says", overflow="fold")
    table.add_column("found here", overflow="fold", ratio=2)
    for verdict in verdicts:
        claim, figure = verdict.claim, verdict.figure
        place = f" ({claim.places[0]})" if claim.places else ""
        style = {True: "green", False: "yellow", None: ""}[verdict.holds]
        how = f" ({figure.source}{': ' + figure.note if figure.note else ''})"
        table.add_row(
            Text(claim.key), Text(claim.says + place), Text(verdict.text, style=style).append(how, style="dim")
        )
    return table
