"""An examination for people: four short tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tune_cropshield.config.units import counted
from tune_cropshield.data.class_sizes import always_the_largest_line, is_imbalanced, sizes_line, validation_line
from tune_cropshield.data.left_out import left_out_lines
from tune_cropshield.data.look_alikes import look_alike_lines
from tune_cropshield.doctor.claims import REFERENCE_WORKERS
from tune_cropshield.doctor.examination import Examination
from tune_cropshield.doctor.photographs import Photographs, most_common_side
from tune_cropshield.doctor.verdicts import Verdict

NAMED_AT_MOST = 5  # broken files and copies
RULES = "published rules of thumb (the CropShield training guide)"


def show(found: Examination, console: Console) -> None:
    """Prints the examination."""
    console.print(_two_columns("machine", _machine(found)))
    console.print()
    console.print(_two_columns("photographs", _photographs(found.photographs, found.drawn)))
    console.print()
    console.print(_two_columns("images per second", _speeds(found)))
    known = [verdict for verdict in found.verdicts if verdict.figure.value is not None]
    for model in sorted({verdict.model for verdict in known}):
        console.print()
        console.print(_claims(model, [verdict for verdict in known if verdict.model == model]))
    judged = [verdict.holds for verdict in known if verdict.holds is not None]
    console.print()
    device = "GPU" if found.device == "cuda" else "CPU"
    console.print(
        f"{counted(len(judged), 'claim')} with a figure could be checked on this {device}: {sum(judged)} "
        f"{'holds' if sum(judged) == 1 else 'hold'}. "
        f"{found.seconds:.0f} s."
    )
    if found.device == "cpu":
        console.print(
            "Memory is our estimate for a GPU (nothing was measured on one); speeds are this CPU's, at small images."
        )


def _machine(found: Examination) -> list[tuple[str, str]]:
    machine = found.machine
    gpu = "none that this torch can use"
    if machine.gpu is not None and machine.vram_mib is not None and machine.vram_free_mib is not None:
        others = f" (the fullest of {machine.gpus})" if machine.gpus > 1 else ""
        gpu = (
            f"{machine.gpu}{others}, driver {machine.driver}, {machine.vram_free_mib:.0f} of {machine.vram_mib:.0f} "
            "MiB free"
        )
    return [
        ("GPU", gpu),
        ("CPU", f"{counted(machine.cores, 'core')} for us, {machine.system}"),
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
        else f"{photographs.looked_at} of {photographs.files} in a random order"
    )
    broken = f"{len(photographs.broken)} ({whole} were decoded)" + _named(
        [f"{path} ({why})" for path, why in photographs.broken]
    )
    copies = f"groups of identical files: {len(photographs.copies)}"
    copies += f", {photographs.across_classes} of them in more than one class" if photographs.across_classes else ""
    copies += "" if photographs.files_compared else " so far: there was no time to compare all"
    near = f"groups of turned, mirrored, rescaled or recompressed ones: {len(photographs.near_copies)}"
    near += "" if photographs.looked_at == photographs.files else f" among the {photographs.looked_at} decoded"
    split = "the folders' own split: " if photographs.given_split else ""
    rows = [
        ("folder", photographs.folder + (" (synthetic: no --data was given)" if drawn else "")),
        ("classes", f"{len(classes)} of {sum(classes.values())} files; {sizes_line(classes)}"),
        ("to beat", always_the_largest_line(classes)),
        ("validation", split + validation_line(photographs.validation)),
        ("sizes", most_common_side(photographs)),
        ("broken", broken),
        ("copies", copies + _named([" = ".join(group) for group in photographs.copies])),
        ("near-copies", near + _named([" ~ ".join(group) for group in photographs.near_copies])),
        *(("names", line) for line in look_alike_lines(classes)),
        *(("folder", line) for line in left_out_lines(photographs.left_out)),
    ]
    rows += [("advice", line) for line in photographs.long]
    if is_imbalanced(classes):
        rows.append(
            ("advice", 'class_weights = "balanced" gives small classes their say; macro F1 shows whether it helps')
        )
    return rows


def _named(things: list[str]) -> str:
    if not things:
        return ""
    return ": " + ", ".join(things[:NAMED_AT_MOST]) + (", ..." if len(things) > NAMED_AT_MOST else "")


def _speeds(found: Examination) -> list[tuple[str, str]]:
    loading = found.loading
    how = f"by one process (PIL and torchvision transforms, {loading.image_size} px)"
    gain = f"augmented on the device: {loading.gain:.1f} times as many"
    rows = [
        ("stock loader", f"{_rate(loading.stock_images_per_s)} {how}"),
        ("our store", f"{_rate(loading.store_images_per_s)}, {gain}"),
        ("decoding, once", f"{_rate(loading.decode_images_per_s)} by one thread"),
    ]
    for model, speeds in found.speeds.items():
        rows.append((model, speeds.how))
        rows += [(f"  {name}", _rate(rate)) for name, rate in speeds.images_per_s.items()]
    if found.device == "cuda" and found.speeds:
        fastest = max(max(speeds.images_per_s.values()) for speeds in found.speeds.values())
        workers = min(REFERENCE_WORKERS, found.machine.cores)
        fed = loading.stock_images_per_s * workers
        if fed < fastest:
            bound = f"loader-bound: {workers} stock processes give {fed:.0f}, the step takes {fastest:.0f}"
            rows.append(("verdict", bound))
    return rows


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:.0f}" if images_per_s >= 100 else f"{images_per_s:.1f}"


def _two_columns(title: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, title=title, title_justify="left", title_style="bold")
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def _claims(model: str, verdicts: list[Verdict]) -> Table:
    table = Table(box=None, pad_edge=False, title=f"{RULES} about {model}", title_justify="left", title_style="bold")
    table.add_column("claim", overflow="fold")
    table.add_column("the rule", overflow="fold")
    table.add_column("here", overflow="fold", ratio=2)
    for verdict in verdicts:
        claim, figure = verdict.claim, verdict.figure
        place = f" ({claim.places[0]})" if claim.places else ""
        style = {True: "green", False: "yellow", None: ""}[verdict.holds]
        how = f" ({figure.source}{': ' + figure.note if figure.note else ''})"
        table.add_row(
            Text(claim.key), Text(claim.says + place), Text(verdict.text, style=style).append(how, style="dim")
        )
    return table
