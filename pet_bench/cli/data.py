"""`pet-bench data`: check and prepare datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pet_bench.cli.shared import SEEDS, App, Plugins, bar, changes, examples, load_plugins
from pet_bench.data.known import KNOWN
from pet_bench.errors import UserError

if TYPE_CHECKING:
    from pet_bench.data.check import Report
    from pet_bench.data.convert import Part as ReadBack
    from pet_bench.data.convert import Report as Converted
    from pet_bench.data.suite import Suite
    from pet_bench.data.task import Task

app = App(help="Check and prepare datasets.", no_args_is_help=True)

SuiteName = Annotated[
    str | None, typer.Option(help="Suite; by default every suite on user data of which the folder holds annotations.")
]
TaskNames = Annotated[list[str] | None, typer.Option(help="Only this task; repeatable.")]
FedWith = Annotated[
    Literal["features", "pixels"],
    typer.Option("--fed", help="What backbones see of an image: stored features, or pixels of the pictures."),
]
Root = Annotated[Path, typer.Argument(metavar="ROOT", help="Root folder of the datasets.")]


@app.command(
    epilog=examples(
        "pet-bench data check ~/datasets",
        "pet-bench data check ~/datasets --suite image-text --all --packed",
        "pet-bench data check ~/datasets --task vqa --task nlvr2",
        "pet-bench data check ~/nlvr --suite nlvr-v1 --set nlvr-v1.train=dev",
        "pet-bench data check ~/datasets --task vqa --fed pixels",
    )
)
def check(
    root: Root,
    suite: SuiteName = None,
    task: TaskNames = None,
    all_: Annotated[bool, typer.Option("--all", help="Read the values of every feature, not of a sample.")] = False,
    packed: Annotated[bool, typer.Option("--packed", help="Compare packed features with their checksums too.")] = False,
    fed: FedWith = "features",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="TASK.KEY=VALUE", help="Change a protocol option; repeatable.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Say what is there, what is missing, what is broken and where it comes from. Alters nothing.

    Exit code 0 if a run would go through, 1 if there are faults.
    """
    load_plugins(plugin)
    from rich.console import Console

    from pet_bench.data.check import check as check_data

    console, faults = Console(highlight=False), 0
    for chosen, tasks in _suites(root, suite, task, set_):
        with bar(f"checking {chosen.name}") as progress:
            report = check_data(root, tasks, chosen.visual, whole=all_, packed=packed, progress=progress, fed=fed)
        for view in _check_views(root, chosen.name, report):
            console.print(view, soft_wrap=isinstance(view, str))
        faults += len(report.faults)
    raise typer.Exit(1 if faults else 0)


@app.command(
    epilog=examples(
        "pet-bench data convert ~/downloads ~/datasets",
        "pet-bench data convert ~/downloads ~/datasets --task vqa --task nlvr2 --force",
    )
)
def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of official downloads, in any order.")],
    root: Root,
    task: TaskNames = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that hold something else.")] = False,
    plugin: Plugins = None,
) -> None:
    """Make the annotation files that the tasks read from the official downloads, or from tables of the hub.

    Downloads are known by their official names, wherever they lie below SOURCE and in ZIP archives too, tables by their
    columns. Everything is checked before anything is written. Exit code 0 if the tasks' readers can read all their
    splits, 1 if not.
    """
    load_plugins(plugin)
    from rich.console import Console

    from pet_bench.data.convert import convert as convert_data
    from pet_bench.data.convert import read_back

    with bar("converting (MiB)") as progress:
        report = convert_data(source, root, task or (), force=force, progress=progress, say=_aside)
    with bar("reading back") as progress:
        parts = read_back(root, report.tasks, progress, report.protocol)
    console = Console(highlight=False)
    for view in _convert_views(source, root, report, parts):
        console.print(view, soft_wrap=isinstance(view, str))
    raise typer.Exit(1 if any(part.missing or part.faults for part in parts) else 0)


@app.command(
    epilog=examples(
        "pet-bench data fetch vqa --to ~/hub/vqa",
        "pet-bench data fetch lmms-lab/GQA --files 'testdev_balanced_*/*' --to ~/hub/gqa",
    )
)
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"{', '.join(KNOWN)}; or OWNER/NAME.")],
    to: Annotated[Path | None, typer.Option(metavar="FOLDER", help="By default hub/NAME.")] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch. Default: the one FOLDER was begun with, or the newest.")
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only these files; repeatable. OWNER/NAME needs it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be fetched.")] = False,
) -> None:
    """Fetch a data set from the Hugging Face hub. This command alone uses the network. Needs pet-bench[hub].

    If interrupted, run it again to go on. FOLDER/fetched.json has commit and digests.
    """
    from pet_bench.data.fetch import RECORD, plan
    from pet_bench.data.fetch import fetch as fetch_data

    planned = plan(name, to or Path("hub", *name.split("/")), revision=revision, patterns=files or ())
    where = f"{planned.endpoint}/datasets/{planned.repository} at {planned.revision}"
    size = f"{planned.size / 1e9:.2f} GB" if planned.size > 1e7 else f"{planned.size:,} bytes"
    print(f"from {where}: {len(planned.files):,} files, {size}, to {planned.folder}", flush=True)
    if dry_run:
        return
    with bar("checking (MiB)") as progress:
        record = fetch_data(planned, progress)
    print(f"{planned.folder}: {len(record.files):,} files are there and whole, see {RECORD}")


@app.command(
    epilog=examples(
        "pet-bench data pack ~/datasets", "pet-bench data pack ~/datasets --suite image-text --out /scratch/pet-bench"
    )
)
def pack(
    root: Root,
    suite: SuiteName = None,
    task: TaskNames = None,
    out: Annotated[
        Path | None, typer.Option(help="Cache folder; runs find it if PET_BENCH_CACHE names it. Default: theirs.")
    ] = None,
    missing_features: Annotated[
        Literal["refuse", "drop"],
        typer.Option("--missing-features", help="As for run; drop leaves examples out."),
    ] = "refuse",
    fed: FedWith = "features",
    pooled: Annotated[
        bool, typer.Option("--pooled", help="Keep of a grid of features what enters models: less to read.")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="TASK.KEY=VALUE", help="Change a protocol option; repeatable.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Pack the features, or pictures, of a suite ahead of training, as a run would. If interrupted, run it again.

    A run finds the packed features if these are what it wants, or more than that, and the source files are unchanged.
    Pooled ones give the same numbers to the bit, but to methods that read the whole grid, which say so.
    """
    load_plugins(plugin)
    if pooled and fed == "pixels":
        raise UserError("--pooled is for features, not for pixels")
    from pet_bench.data.reading import read_and_pack
    from pet_bench.results.dropped import counts, summary

    for chosen, tasks in _suites(root, suite, task, set_):
        with bar(f"packing {chosen.name}") as progress:
            _, store, left_out = read_and_pack(
                root, tasks, chosen.visual, missing=missing_features, cache=out, progress=progress, fed=fed,
                pooled=pooled,
            )  # fmt: skip
        assert store is not None  # as packing was asked for
        size = f"{len(store.index):,} {store.what}, {store.bytes_wanted / 1e9:.2f} GB"
        print(f"{chosen.name}: {size} in {store.folder}")
        if left_out.dropped:
            what = "picture" if fed == "pixels" else "feature"
            print(f"{chosen.name}: examples left out, since a {what} is missing: {summary(counts(left_out.dropped))}")
    if out:
        print(f"runs find it with PET_BENCH_CACHE={out}")


@app.command(
    epilog=examples(
        "pet-bench data features ~/vg ~/datasets/VG/clip_features/data_clip_RN101_att --kind images --weights openai",
        "pet-bench data features ~/yc2 ~/datasets/video/vis_features/yc2/clip-vit --kind videos --weights b32.pt",
        "pet-bench data features ~/tvqa ~/datasets/video/vis_features/tv/clip-vit --kind frames --weights openai",
    )
)
def features(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of images, of videos or of frame folders.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder that receives a file for each.")],
    kind: Annotated[Literal["images", "videos", "frames"], typer.Option(help="What SOURCE holds.")],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_TAG",
            help="A checkpoint, or a tag that open_clip knows and may download. The published features are of openai.",
        ),
    ] = None,
    random_weights: Annotated[
        int | None, typer.Option(metavar="SEED", **SEEDS, help="Random weights, to try things out; the files say so.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, … or auto.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, max=100_000, help="Pictures encoded at once.")] = 64,
    fps: Annotated[
        float, typer.Option(min=0.01, max=1_000, help="Extracted frames a second; with --kind frames.")
    ] = 3.0,
) -> None:
    """Extract CLIP features of raw images and videos, in the layout that the tasks read. Needs pet-bench[features].

    Images get RN101 grids, videos and frames a ViT-B/32 embedding every 1.5 s. Images are also found in parquet tables
    with the columns id and image, and where `data convert` named those of the hub's tables. If interrupted, run it
    again to go on. Exit code 0 if everything has features, 1 if something could not be read.
    """
    import sys

    from pet_bench.data.features import clip_encoder, extract, find
    from pet_bench.spec import Runtime
    from pet_bench.trial.build import prepare_device

    listing = find(source, kind)
    encoder = clip_encoder(kind, weights, seed=random_weights, device=prepare_device(Runtime(target, device=device)))
    with bar(f"encoding {kind}") as progress:
        report = extract(listing, target, encoder, batch=batch, fps=fps, progress=progress)
    for fault in report.faults:
        print(f"✗ {fault}", file=sys.stderr)
    kept = f", {report.kept:,} kept" if report.kept else ""
    kept += f" ({report.unsigned:,} of them do not say what made them)" if report.unsigned else ""
    failed = f", {len(report.faults):,} failed" if report.faults else ""
    print(f"{target}: {report.written:,} written{kept}{failed}")
    if listing.others:
        print(f"{source}: {listing.others:,} files were left alone, the first is {listing.first}")
    raise typer.Exit(1 if report.faults else 0)


def _aside(said: str) -> None:
    import sys

    print(f"! {said}", file=sys.stderr)


def _suites(
    root: Path, name: str | None, tasks: list[str] | None, set_: list[str] | None
) -> list[tuple[Suite, list[Task]]]:
    """The suites that a data command is about, each with its tasks as the protocol changes make them."""
    from pet_bench.data.check import suites_in
    from pet_bench.data.reading import build_tasks
    from pet_bench.data.shards import refuse_cache
    from pet_bench.data.suite import suite_by_name

    if not root.is_dir():
        raise UserError(f"data folder {root} does not exist" if not root.exists() else f"{root} is no folder")
    refuse_cache(root)
    if name is not None:
        suites = [suite_by_name(f"{name}/{'+'.join(tasks)}" if tasks else name)]
    else:
        suites = [suite_by_name(task) for task in tasks or []] or suites_in(root)
    if not suites:
        raise UserError(f"{root} holds annotations of no suite; name one with --suite to see what it needs")
    protocol: dict[str, dict[str, Any]] = {}
    for key, value in changes(set_, "TASK.KEY=VALUE").items():
        target, _, option = key.partition(".")
        if not option or target not in {task for suite in suites for task in suite.tasks}:
            possible = sorted(task for suite in suites for task in suite.tasks)
            raise UserError(f'--set takes TASK.KEY=VALUE, found "{key}" (tasks: {", ".join(possible)})')
        protocol.setdefault(target, {})[option] = value
    return [(suite, build_tasks(suite.tasks, protocol)) for suite in suites]


def _check_views(root: Path, suite: str, report: Report) -> list[Any]:
    """A table of tasks and splits, the faults, where to get what is at fault, and the verdict."""
    from collections import Counter

    from rich.markup import escape
    from rich.table import Table

    from pet_bench.results.dropped import summary

    table = Table("task", "split", "named", "files", box=None, pad_edge=False)
    for name in ("examples", "images", "pictures" if report.fed == "pixels" else "features", "faults"):
        table.add_column(name, justify="right")
    for part in report.parts:
        states = Counter(part.files.values())
        files = ", ".join(f"{states[state]} {state}" for state in ("found", "missing", "broken") if states[state])
        numbers = [f"{number:,}" for number in (part.examples, part.images, part.ready, part.faults)]
        style = "red" if part.faults else ""
        table.add_row(part.task, part.split, escape(part.name), files, *numbers, style=style)
    views: list[Any] = [table, ""]
    views += [escape(f"✗ {fault.replace(f'{root}/', '')}") for fault in report.faults]
    if report.origins:
        origins = Table("from where", "", box=None, pad_edge=False)
        for pattern, origin in report.origins.items():
            origins.add_row(escape(pattern), escape(origin))
        views += ["", origins]
    if report.layout:
        views += [escape(f"features are in shards: {report.layout}")]
    left = [
        escape(f"{part.task}: {n:,} of {part.name} ({part.split}) are left out: {why}")
        for part in report.parts
        for why, n in part.left_out.items()
    ]
    if report.dropped:
        total = sum(part.dropped for part in report.parts)
        left.append(f"--missing-features drop would leave out {total:,} examples: {summary(report.dropped)}")
    views += ["", *left] if left else []
    what, values = ("pictures", "pixels") if report.fed == "pixels" else ("features", "values")
    read = f"all {report.features:,}" if report.sampled == report.features else f"{report.sampled:,}"
    looked = f"{values} of {read} {what} read" if report.features else f"no {what} looked for"
    there = f"packed in {report.packed}" if report.packed else "not packed yet"
    there += ", but damaged: a run packs anew" if report.packed and not report.whole else ""
    verdict = f"{len(report.faults)} faults" if report.faults else "a run would go through"
    return [*views, *([""] if len(views) > 2 else []), escape(f"{suite}: {verdict}; {looked}; {there}")]


def _convert_views(source: Path, root: Path, report: Converted, parts: list[ReadBack]) -> list[Any]:
    """A line for every file, tables of the splits as they are read and of what is missing, and what else is to say."""
    from rich.markup import escape
    from rich.table import Table

    views: list[Any] = []
    before = None
    for made in report.written:
        names = ", ".join(str(file).removeprefix(f"{source}/") for file in made.sources)
        origin = "the same" if names == before else names
        views.append(escape(f"{made.task:<12}  {made.state:<11}  {made.rows:>9,} rows  {made.target} ← {origin}"))
        before = names
    splits = Table("task", "split", "named", box=None, pad_edge=False)
    splits.add_column("examples", justify="right")
    splits.add_column("", overflow="fold")
    for part in parts:
        state = f"{len(part.faults)} faults" if part.faults else "read"
        if part.missing:
            more = f" and {len(part.missing) - 1} more" if part.missing[1:] else ""
            state = f"no {part.missing[0].name}{more}"
        style = "" if state == "read" else "red"
        splits.add_row(part.task, part.split, escape(part.name), f"{part.examples:,}", escape(state), style=style)
    views += ["", splits]
    faults = dict.fromkeys(fault for part in parts for fault in part.faults)
    if faults:
        views += ["", *(escape(f"✗ {fault.replace(f'{root}/', '')}") for fault in faults)]
    unread = {part.task for part in parts if part.missing or part.faults}
    wanted: dict[tuple[str, str], list[str]] = {}
    for missing in report.missing:
        if missing.task in unread:
            wanted.setdefault((missing.task, missing.origin), []).append(missing.download)
    if wanted:
        absent = Table("task", box=None, pad_edge=False)
        absent.add_column("not found", no_wrap=True)
        absent.add_column("from where")
        for (task, origin), titles in wanted.items():
            absent.add_row(task, escape("\n".join(titles)), escape(origin))
        views += ["", absent]
    if report.notes:
        views += ["", *(escape(f"! {note}") for note in report.notes)]
    idle = f"; no downloads of {', '.join(report.idle)}" if report.idle else ""
    done = [task for task in report.tasks if task not in unread]
    for task, options in report.protocol.items():
        settings = " ".join(f"--set {task}.{key}={name}" for key, name in options.items())
        views += ["", escape(f"{task}: read with {settings}")]
    return [*views, "", escape(f"{root}: {', '.join(done) or 'no task'} can be read{idle}")]


@app.command(epilog=examples("pet-bench data mini mini-data"))
def mini(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder to write the mini datasets to.")],
    seed: Annotated[int, typer.Option(**SEEDS, help="Seed of the world.")] = 0,
) -> None:
    """Write the mini datasets, all eight tasks, in the real datasets' file formats."""
    from pet_bench.mini.write_clips import write_all

    try:
        with bar("drawing") as progress:
            write_all(root, seed=seed, progress=progress)
    except OSError as error:
        raise UserError(f"mini datasets cannot be written: {error}") from error
    print(f"wrote {root}")
