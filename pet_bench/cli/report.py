"""`pet-bench report`: the results of grids as tables, figures and a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pet_bench.cli.shared import Out, Plugins, To, folder_of, load_plugins, only_with, uncollected, working, writing
from pet_bench.cli.style import TableFormat, report_style
from pet_bench.errors import Faults, UserError

if TYPE_CHECKING:
    import pandas as pd

    from pet_bench.grid.plan.spec import Skipped
    from pet_bench.grid.plan.tuning import Tuning
    from pet_bench.report.statistics.marking import Marks
    from pet_bench.results.aliases import Results as Loaded
    from pet_bench.results.frames import Collected

STYLES = "vlpet-table2, -table9, -figure1, -checkpoints or -video"


def report(
    grids: Annotated[
        list[str] | None, typer.Argument(metavar="GRID...", help="Grid files, shipped grids' names or results folders.")
    ] = None,
    out: Out = None,
    style: Annotated[str | None, typer.Option(help=f"A paper's table beside ours: {STYLES}.")] = None,
    format: Annotated[TableFormat, typer.Option(help="With --style: what to print; files are in all formats.")] = (
        TableFormat.TERMINAL
    ),
    agreement: Annotated[
        bool, typer.Option("--agreement", help="With --style: how far our order of methods is the paper's, too.")
    ] = False,
    without_suspect: Annotated[
        bool, typer.Option("--without-suspect", help="Leave trials marked † out of all means.")
    ] = False,
    html: Annotated[
        bool, typer.Option("--html", help="Write a page too, report/index.html: one file with all of it.")
    ] = False,
    all_: Annotated[
        bool, typer.Option("--all", help="With --html: a page for every grid in results/, and one before them.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="With --html: root folder of the datasets, as for run.")] = None,
    images: Annotated[Path | None, typer.Option(help="With --html: folder of the pictures, named by image id.")] = None,
    examples: Annotated[
        int | None, typer.Option(min=0, max=1_000_000, help="With --html: examples of a task on it; 100.")
    ] = None,
    to: To = None,
    plugin: Plugins = None,
) -> None:
    """Print the comparison table, or a paper's, and write it, with figures, to `report/` in the results folder.

    Several grids make one table, written to `report/` beside the first one's results. Where nothing can be written
    there, the table is printed all the same, and the exit code is 2.
    """
    load_plugins(plugin)
    if all_ and (grids or not html):
        raise UserError("--all is for pages of all grids in results/: pet-bench report --all --html --to FOLDER")
    if not (grids or all_):
        raise UserError("which grid? name one, a results folder, or --all --html")
    grids = grids or []
    if format != TableFormat.TERMINAL and not style:
        raise UserError(f"--format {format} is for --style NAME; the comparison is written to report/table.md and .csv")
    if agreement and not style:
        raise UserError("--agreement is for --style NAME: with which paper's table?")
    if html and style:
        raise UserError("--html is of the comparison: leave --style away, which writes a page of its own")
    only_with("--html", html, data=data, images=images, examples=examples)
    if out and len(grids) > 1:
        raise UserError("--out is the results folder of one grid: give several as folders instead of grids")
    from pet_bench.report.summary import without_suspect as bare

    if all_:
        count = 100 if examples is None else examples
        with uncollected(), writing("--to FOLDER writes to another folder"):
            _site(out or Path("results"), to, Page("", data, images, count), bare if without_suspect else None)
        return
    with uncollected():
        with working("reading results"):
            results = _read(grids, out)
        results.report = to or results.report
        if without_suspect:
            results.frame = bare(results.frame)
        page = Page(", ".join(results.names), data, images, 100 if examples is None else examples) if html else None
        with writing("--to FOLDER writes to another folder"):
            written = report_style(results, style, format, agreement) if style else _comparison(results, page)
    for path in written:  # not on stdout where that may be a file
        typer.echo(f"wrote {path}", err=format != TableFormat.TERMINAL)


@dataclass
class Results:
    """The results of the grids asked for. report: the folder for what is made of them. notes: what to say beneath.

    tuning: what was chosen by which protocol, of tuned grids. loaded: all that is in the folders, by folder; every file
    is read once.
    """

    frame: pd.DataFrame
    names: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    report: Path = Path("report")
    notes: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    tuning: list[Tuning] = field(default_factory=list)
    loaded: dict[Path, Loaded] = field(default_factory=dict)

    @property
    def there(self) -> list[Path]:
        return [folder for folder in self.folders if folder.is_dir()]

    def collected(self) -> Collected:
        """Of which frames are made."""
        from pet_bench.results.frames import collected

        return collected(*self.there, loaded=self.loaded)


@dataclass(frozen=True)
class Page:
    """What a page is made with (`cli.page.write_page`)."""

    title: str
    data: Path | None
    images: Path | None
    examples: int


def _read(grids: list[str], out: Path | None) -> Results:
    """The results of the trials of some grids, those that are missing included; each trial once."""
    import pandas as pd

    from pet_bench.files import is_file, is_folder
    from pet_bench.grid.plan.spec import load
    from pet_bench.report.tables.tuned import tuning_notes
    from pet_bench.results import store

    results, faults, frames = Results(pd.DataFrame()), Faults(), []
    for grid in grids:
        with faults:
            if is_folder(grid) and not is_file(Path(grid) / "grid.yaml"):
                frames.append(_read_folder(results, Path(grid)))
                continue
            plan = load(grid, out)
            planned, folder = plan.plan(), folder_of(plan, grid, out)
            if folder not in results.loaded:
                results.loaded[folder] = store.load_all(folder)
            trials, stored = planned.trials, results.loaded[folder]
            ids = {trial.id for trial in trials}
            frame = store.to_frame(
                (stored[trial.id] for trial in trials if trial.id in stored),  # in the grid's order
                [trial for trial in trials if trial.id not in stored],
            )
            frames.append(frame.assign(folder=str(folder)))
            results.skipped += planned.skipped
            results.names.append(plan.name)
            results.folders.append(folder)
            where = f" in {folder}" if len(grids) > 1 else ""
            results.notes += stored.notes(trial.id for trial in trials)
            if left := len(stored.keys() - set(map(stored.own, ids))):
                results.notes.append(f"{left} other results in the folder{where} are not of this grid and are left out")
            if plan.tuning:
                results.tuning.append(plan.tuning)
                results.notes += tuning_notes(plan.tuning, len({one.trial.seed for one in planned.planned}))
            if plan.search:
                results.notes.append(
                    f"{plan.name} is a search: the best test score flatters, pet-bench best chooses by validation"
                )
    faults.check()
    results.frame = _each_once(pd.concat(frames, ignore_index=True))
    first = results.folders[0]
    results.report = (first.parent if len(set(results.folders)) > 1 else first) / "report"
    return results


def _read_folder(results: Results, folder: Path) -> pd.DataFrame:
    """All trials of a folder that no grid has filled."""
    from pet_bench.results import store

    stored = results.loaded[folder] = store.load_all(folder)
    if not stored:
        raise UserError(f'folder "{folder}" has neither a grid.yaml nor results')
    results.names.append(folder.name)
    results.folders.append(folder)
    results.notes += stored.notes(stored)
    return store.to_frame(stored.values(), []).assign(folder=str(folder))


def _each_once(frame: pd.DataFrame) -> pd.DataFrame:
    """Of a trial that several grids have, the rows from the first folder with its result."""
    late = frame.assign(late=frame.status.eq("missing")).sort_values("late", kind="stable")
    owner = late.drop_duplicates("id").set_index("id").folder
    return frame[frame.folder == frame.id.map(owner)].drop_duplicates().reset_index(drop=True)


def _comparison(results: Results, page: Page | None) -> list[Path]:
    """Print the comparison table; write it as Markdown and CSV, the figures and, if one is asked for, the page."""
    from pet_bench.cli.tables import print_tables
    from pet_bench.files import write_text
    from pet_bench.report.costs import costs
    from pet_bench.report.statistics import significantly_best
    from pet_bench.report.summary import comparison, scored, tasks_of
    from pet_bench.report.tables.costs import LEAST, cost_notes, cost_sections
    from pet_bench.report.tables.views import markdown_sections, rich_sections, to_csv, to_markdown, to_rich

    if scored(results.frame).empty:
        where = ", ".join(map(str, results.folders))
        raise UserError(f'no trial of this grid is finished in "{where}": `pet-bench run` runs what is missing')
    with working("comparing methods"):
        table, marks = comparison(results.frame, results.skipped), significantly_best(results.frame, results.folders)
    beneath = _beneath(results, table, marks)
    views = to_rich(table, beneath, marks.best)
    print_tables(views, least=["parameters", "rank", "trainable %", *reversed(tasks_of(table))])
    written = [results.report / name for name in ("table.md", "table.csv")]
    write_text(written[0], to_markdown(table, beneath, marks.best))
    write_text(written[1], to_csv(table))
    written += _appendix(results)
    if spent := cost_sections(results.frame):
        beneath_costs = cost_notes(results.frame)
        print_tables(rich_sections(spent, beneath_costs), least=LEAST)
        texts = {"costs.md": markdown_sections(spent, beneath_costs), "costs.csv": to_csv(costs(results.frame))}
        for name, text in texts.items():
            write_text(results.report / name, text)
            written.append(results.report / name)
    written += _figures(results)
    if page:
        from pet_bench.cli.page import write_page

        with working("writing the page"):
            path = write_page(
                results.frame, results.collected(), results.report, beneath, best=marks.best, skipped=results.skipped,
                data=page.data, images=page.images, examples=page.examples, title=page.title,
            )  # fmt: skip
        written.append(path)
    return written


def _beneath(results: Results, table: pd.DataFrame, marks: Marks) -> list[str]:
    """What is said under a comparison, in print, in files and on a page."""
    from pet_bench.report.statistics import rank_notes
    from pet_bench.report.tables.beneath import notes, skipped_notes
    from pet_bench.results.provenance import commit

    return [
        *_drawn(results.frame),
        *skipped_notes(results.skipped),
        *notes(results.frame, commit()[0]),
        *marks.caption,
        *marks.power,
        *rank_notes(table),
        *results.notes,
    ]


def _site(root: Path, to: Path | None, page: Page, bare: Callable[[pd.DataFrame], pd.DataFrame] | None) -> None:
    """A page for every grid with finished trials in the folders of `root`, and the page before them."""
    from pet_bench.cli.page import write_page
    from pet_bench.files import write_text
    from pet_bench.report.page.site import Grid, site
    from pet_bench.report.statistics import significantly_best
    from pet_bench.report.summary import comparison, scored

    target, grids = to or root / "report" / "site", []
    for folder in sorted(path.parent for path in root.glob("*/grid.yaml")):
        with working(f"writing the page of {folder.name}"):
            results = _read([str(folder)], None)
            frame = results.frame = bare(results.frame) if bare else results.frame
            if scored(frame).empty:
                continue
            marks = significantly_best(frame, results.folders)
            beneath = _beneath(results, comparison(frame, results.skipped), marks)
            write_page(
                frame, results.collected(), target / folder.name, beneath, best=marks.best, skipped=results.skipped,
                data=page.data, images=page.images, examples=page.examples, title=results.names[0],
            )  # fmt: skip
            grids.append(Grid(folder.name, frame, marks.best))
    if not grids:
        raise UserError(f'no folder in "{root}" has a grid.yaml and finished trials')
    write_text(target / "index.html", site(grids))
    typer.echo(f"wrote {target / 'index.html'}, and a page for each of {len(grids)} grids")


def _appendix(results: Results) -> list[Path]:
    """Write what tuning chose for each method, as Markdown and CSV."""
    import pandas as pd

    from pet_bench.files import write_text
    from pet_bench.report.tables.tuned import to_markdown, tuned

    if not (tables := [tuned(tuning) for tuning in results.tuning if tuning.chosen]):
        return []
    table, (markdown, csv) = pd.concat(tables), (results.report / name for name in ("tuning.md", "tuning.csv"))
    write_text(markdown, to_markdown(table, [note for note in results.notes if "tuned:" in note or "edge" in note]))
    write_text(csv, table.to_csv(index=False))
    return [markdown, csv]


def _drawn(frame: pd.DataFrame) -> list[str]:
    """A warning where data come with the package, so that nobody takes them for those they are named after."""
    from pet_bench.results.exchange.names import is_drawn

    return [
        f"{suite} is a mini world, drawn by this program: its scores cannot be compared with the real data sets'"
        for suite in frame.suite.unique()
        if is_drawn(suite)
    ]


def _figures(results: Results) -> list[Path]:
    """Draw what there is to draw; says of the rest why not."""
    from pet_bench.report.figures import (
        ablation_figure,
        learning_curves_figure,
        pareto_figure,
        question_types_figure,
        write,
    )
    from pet_bench.report.figures.axes import without_chosen
    from pet_bench.results import frames

    order = {id: place for place, id in enumerate(results.frame.id.unique())}
    with working("collecting curves, parts and settings"):
        collected = results.collected()
        curves, breakdowns, settings = (
            rows[rows.id.isin(order)].sort_values("id", key=lambda ids: ids.map(order), kind="stable")
            for rows in (made(collected) for made in (frames.curves, frames.breakdowns, frames.settings))
        )
    if len(results.tuning) == len(results.folders):  # all are tuned
        settings = without_chosen(settings, results.tuning)
    figures = {
        "pareto": partial(pareto_figure, results.frame),
        "learning_curves": partial(learning_curves_figure, curves),
        "question_types": partial(question_types_figure, breakdowns),
        "ablation": partial(ablation_figure, results.frame, settings),
    }
    written = []
    for name, draw in figures.items():
        try:
            with working(f"drawing {name}"):
                written += write(draw(), results.report / f"{name}.png")
        except UserError as nothing:
            typer.echo(f"not drawn: {name}: {nothing}")
    return written
