"""What a task is: readers of its files, and the facts of its protocol."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Optional

import h5py
import numpy as np
from PIL import Image
from pydantic import BeforeValidator, Field, PositiveInt

from pet_bench.data.albums import Albums
from pet_bench.data.rows import shown
from pet_bench.data.shards import GRIDS, Shards, annotations_of, shards_of
from pet_bench.errors import Faults, PluginError, UserError, foreign, text_of
from pet_bench.metrics.scores import Metric, Scores, scored
from pet_bench.registry import METRICS, ask, attribute_faults, title
from pet_bench.spec import MissingFeatures, Text, option_faults

if TYPE_CHECKING:
    from pet_bench.data.submissions import Submission

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
# A split that may be absent; "none" is how the command line says so.
OptionalSplit = Annotated[str | None, BeforeValidator(lambda value: None if value in ("", "none", "None") else value)]
Loss = Literal["sample-mean", "score-weighted", "token-mean"]
FEATURES = f"clip_features/{GRIDS}"
SLICE = re.compile(r"(?P<name>[^\[\]+]+)(\[(?P<start>\d{1,3})?%?:((?P<end>\d{1,3})%?)?\])?")


class SplitPart(NamedTuple):
    """`karpathy_train`, or `karpathy_train[95%:]` for the last 5 % of its images, in the order of their first use.

    Counting images, or clips, keeps one that several examples are about on one side of a cut.
    """

    name: str
    start: int = 0
    end: int = 100

    @classmethod
    def parse(cls, names: str) -> list[SplitPart]:
        """The parts of a split option, several joined by "+"; raises UserError where it is malformed."""
        parts = []
        for text in names.split("+"):
            match = SLICE.fullmatch(text)
            part = cls(match["name"], int(match["start"] or 0), int(match["end"] or 100)) if match else None
            if not part or not 0 <= part.start < part.end <= 100:
                raise UserError(f'split "{text}": expected NAME or NAME[FROM%:TO%] with 0 ≤ FROM < TO ≤ 100')
            parts.append(part)
        return parts

    def overlaps(self, other: SplitPart) -> bool:
        return self.name == other.name and self.start < other.end and other.start < self.end

    def of(self, examples: Iterable[Example]) -> list[Example]:
        """The examples that belong to this part, of all that are in the split called `name`."""
        examples = list(examples)
        if (self.start, self.end) == (0, 100):
            return examples
        images = {images: i for i, images in enumerate(dict.fromkeys(example.images for example in examples))}
        low, high = (len(images) * percent // 100 for percent in (self.start, self.end))
        return [example for example in examples if low <= images[example.images] < high]


def overlap(one: str | None, other: str | None) -> str | None:
    """The name of a split that two split options both read from, in part or whole."""
    pairs = product(SplitPart.parse(one), SplitPart.parse(other)) if one and other else ()
    return next((a.name for a, b in pairs if a.overlaps(b)), None)


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn from or be tested on.

    text: all that the encoder reads, prompt included. images: feature keys. targets: answers and their scores, one of
    which is learned at a time; empty where nothing is known (it then counts as the target "" with score 0).
    references: plain data for the metric. kind: type of question, if there are types. groups: what it counts towards in
    the breakdowns of the score; may be empty in training. spare: start and end of the part of a text that is too long
    which is cut, from its end, before anything else is.
    """

    id: str
    text: str
    images: tuple[str, ...]
    targets: tuple[tuple[str, float], ...] = ()
    references: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    groups: dict[str, str] = field(default_factory=dict)
    spare: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What stands in the place of an example that is not used, and why.

    missing: whether something that it needs is not there, which is a fault unless such examples are to be dropped; else
    it does not belong to what the official protocol counts.
    """

    id: str
    why: str
    missing: bool = False


@dataclass(frozen=True)
class Generate:
    """The answer is what the decoder writes. max_length counts special tokens, as in `transformers`."""

    num_beams: int = 1
    max_length: int = 20


@dataclass(frozen=True)
class Choose:
    """The answer is the choice whose first sub-token is likeliest after one decoder pass; the last one wins a tie."""

    choices: tuple[str, ...]


class Task(ABC):
    """A data set with its protocol. Subclasses are frozen pydantic dataclasses; their fields are protocol options.

    Every task has the options `prompt` and the split names `train`, `valid` (None: no validation) and `test`; several
    names joined by "+" are read one after the other, and `name[:95%]` is a part of one (see `SplitPart`). Lengths count
    special tokens, None is no truncation. A batch of this task holds floor(batch_ratio · nominal batch size) examples.
    masks_empty: whether visual vectors that are all zero are hidden from attention. closed: whether every question has
    the same few answers, so that a score near the majority answer's says that nothing was learnt. pictures: whether its
    images are single pictures, which a backbone may be fed with as pixels. origins: where files come from, by glob
    pattern below the root. hub: what the Hugging Face hub calls it: the type of task, the data set's
    identifier and its name. picture_name: where features are not called as their pictures' files, the last two parts of
    a picture's path, without its suffix; the group `name` is what its feature is called. submission: reads anybody's
    predictions for `metric` in the data set's official form, and its annotations (see `data.submissions`).
    """

    plugin_kind: ClassVar[str] = "task"
    name: ClassVar[str] = ""
    loss: ClassVar[Loss] = "sample-mean"
    max_text: ClassVar[int | None] = None
    max_target: ClassVar[int | None] = None
    batch_ratio: ClassVar[float] = 1.0
    decoding: ClassVar[Generate | Choose] = Generate()
    metric: ClassVar[str]
    also: tuple[str, ...] = ()  # metrics beside it
    higher_is_better: ClassVar[bool] = True
    masks_empty: ClassVar[bool] = False
    closed: ClassVar[bool] = False
    pictures: ClassVar[bool] = True
    origins: ClassVar[dict[str, str]] = {}
    hub: ClassVar[tuple[str, str, str] | None] = None
    picture_name: ClassVar[re.Pattern[str] | None] = None
    submission: ClassVar[Callable[[str, Path, Path], Submission] | None] = None

    prompt: str
    train: str
    valid: str | None
    test: str

    def __post_init__(self):
        if shared := overlap(self.train, self.test):
            raise UserError(f'{self.name}: split "{shared}" is both trained on and tested on')
        SplitPart.parse(self.valid or self.test)

    @abstractmethod
    def read(self, root: Path, name: str, split: Split) -> Iterable[Example | LeftOut]:
        """The examples of the split called `name` on disk, to be used as `split`; validates what it reads.

        root: the folder of the annotations (see `data.shards.annotations_of`).
        """

    @abstractmethod
    def sources(self, root: Path, split: Split) -> list[Path]:
        """The annotation files that `read` reads below the same root; those of `names(split)` come first."""

    def names(self, split: Split) -> list[str]:
        """Names on disk of what a split is read from."""
        return [part.name for part in SplitPart.parse(getattr(self, split))]

    def examples(self, root: Path | str, split: Split) -> list[Example]:
        """All examples of a split; raises UserError as `used` does."""
        return self.used(root, split)[0]

    def used(
        self, root: Path | str, split: Split, missing: MissingFeatures = "refuse", albums: Albums | None = None
    ) -> tuple[list[Example], list[LeftOut]]:
        """The examples of a split and what is left out of it, with "drop" also examples of which a feature is missing.

        albums: where pictures are wanted in place of features.

        Raises UserError, with several faults together, where an annotation file is missing, is no JSON, lacks a key or
        has a value of the wrong type, where an id occurs twice, where the split is empty or nothing of it is left.
        """
        examples, unused = self.read_split(root, split)
        if missing == "refuse":
            if without := [f"{self.name}: {item.why}" for item in unused if item.missing]:
                raise shown(without, self.name)
            return examples, unused
        gone = self._gone(root, {key for example in examples for key in example.images}, albums)
        what = "feature" if albums is None else "picture"
        kept = [example for example in examples if gone.isdisjoint(example.images)]
        if not kept:
            raise UserError(f'{self.name}: split "{getattr(self, split)}": each of its examples lacks a {what}')
        lacking = [example.id for example in examples if not gone.isdisjoint(example.images)]
        return kept, unused + [LeftOut(id, f"a {what} is missing", missing=True) for id in lacking]

    def _gone(self, root: Path | str, keys: set[str], albums: Albums | None) -> set[str]:
        """The keys of which a feature, or picture, is missing; raises UserError where shards cannot be read."""
        if albums is not None:
            return {key for key in keys if albums.lack(*self.picture(root, key))}
        if shards := self.shards(root):
            if faults := shards.faults(keys):
                raise shown(faults, "features")
            return {key for key in keys if shards.lack(key)}
        return {key for key in keys if absent(self.feature_path(root, key))}

    def read_split(self, root: Path | str, split: Split) -> tuple[list[Example], list[LeftOut]]:
        """All that a split's readers give; raises UserError as `used` does, but for what is missing."""
        names = getattr(self, split)
        if not names:
            raise UserError(f"{self.name}: no {split} split (option {split} is {names!r})")
        faults, examples, unused = [], [], []
        for part in SplitPart.parse(names):
            try:
                with foreign(f"{title(self)}: read raised"):
                    rows = self.read(annotations_of(Path(root)), part.name, split)
                    read = [row if isinstance(row, LeftOut) else self._example(row) for row in rows]
            except UserError as error:
                faults.append(error)
            else:
                unused += [item for item in read if isinstance(item, LeftOut)]
                examples += part.of(item for item in read if isinstance(item, Example))
        if faults:
            raise UserError.many(faults)
        files = annotation_files(self, root, split)[: len(self.names(split))]
        where = f'{self.name}: {", ".join(map(str, files))}: split "{names}"'
        if not examples:
            why = f"; {len(unused)} are left out, the first because {unused[0].why}" if unused else ""
            raise UserError(f"{where} holds no examples{why}")
        repeated = [key for key, count in Counter(example.id for example in examples).items() if count > 1]
        if repeated:
            count = f"{len(repeated)} ids occur" if len(repeated) > 1 else "an id occurs"
            raise UserError(f"{where}: {count} more than once, the first is {repeated[0]!r}")
        return examples, unused

    def _example(self, example: Any) -> Example:
        if not isinstance(example, Example) or not isinstance(example.id, str) or not isinstance(example.text, str):
            raise PluginError(
                f"{title(self)}: read gave {text_of(example)}, expected an Example with texts as id and text"
            )
        return example

    def check_splits(self, root: Path | str, parts: Mapping[Split, Sequence[Example]]) -> None:
        """Raises UserError where examples that are trained on are tested on, as when a file lies in another's place."""
        trained = {example.id: example for example in parts.get("train", ())}
        seen = [e.id for e in parts.get("test", ()) if e.id in trained and _same(e, trained[e.id])]
        if seen:
            files = ", ".join(str(annotation_files(self, root, split)[0]) for split in ("train", "test"))
            raise UserError(f"{self.name}: {files}: {len(seen)} examples are in both, the first is {seen[0]!r}")

    def batch_size(self, nominal: int) -> int:
        return max(1, int(self.batch_ratio * nominal + 1e-6))

    # features -------------------------------------------------------------------------------------------------------

    def feature_path(self, root: Path | str, key: str) -> Path:
        """The file that holds a feature; by default a key is `<folder>/<image>`, and each image has an HDF5 file.

        A key names the feature among those of all tasks that are trained together: tasks share files by sharing keys.
        Where the root has `shards`, they hold it instead.
        """
        folder, image = key.split("/", 1)
        return Path(root) / folder / FEATURES / f"{image}.h5"

    def feature(self, root: Path | str, key: str) -> np.ndarray:
        """The feature of one image as stored, (tokens, width). Raises OSError or KeyError where it cannot be read."""
        if shards := self.shards(root):
            return shards.feature(key)
        with open_hdf5(self.feature_path(root, key)) as file:
            return self.dataset(file, key)[:]

    def dataset(self, file: h5py.File, key: str) -> h5py.Dataset:
        """Where a feature is in its HDF5 file."""
        dataset = file[f"{key.split('/', 1)[1]}/features"]
        assert isinstance(dataset, h5py.Dataset)
        return dataset

    def shards(self, root: Path | str) -> Shards | None:
        """The shards that hold its features, where the root has some; a task whose files are its own has none."""
        own = any(
            getattr(type(self), name) is not getattr(Task, name) for name in ("feature_path", "feature", "dataset")
        )
        return None if own else shards_of(root)

    # pictures -------------------------------------------------------------------------------------------------------

    def picture(self, root: Path | str, key: str) -> tuple[Path, str]:
        """The folder and the name in it of the picture that a feature is of (see `data.albums.Album`).

        By default a key is `<folder>/<image>`, and the picture `<folder>/images/<image>.jpg` or the like.
        """
        folder, image = key.split("/", 1)
        return Path(root) / folder, image

    def seen(self, picture: Image.Image, key: str) -> Image.Image:
        """What of a picture in RGB a key means; by default all of it. Raises ValueError where it cannot be that."""
        return picture

    # scoring --------------------------------------------------------------------------------------------------------

    @property
    def metric_options(self) -> dict[str, Any]:
        return {}

    def metrics(self) -> list[Metric]:
        """The metrics, the primary one first."""
        kinds = [METRICS.get(name) for name in (self.metric, *self.also)]
        with foreign(f"{title(self)}: its metrics raised"):
            return [kind(**self.metric_options) for kind in kinds]

    def check_metrics(self) -> None:
        """Raises UserError where something that a metric needs, Java say, is not installed."""
        faults = Faults()
        for metric in self.metrics():
            with faults, foreign(f"{title(metric)}: check raised"):
                getattr(metric, "check", lambda: None)()
        faults.check()

    def check_scorable(self, split: Split, examples: Sequence[Example]) -> None:
        """Raises UserError where these examples of a split leave one of the metrics without a meaning."""
        faults, where = Faults(), f'{self.name}: split "{getattr(self, split)}"'
        for metric in self.metrics():
            try:
                getattr(metric, "check_examples", lambda examples: None)(examples)
            except UserError as error:
                faults.add(UserError(*(f"{where}: {fault}" for fault in error.faults)))
        faults.check()

    def score(self, predictions: dict[str, str], examples: Sequence[Example]) -> Scores:
        """Values of all metrics; those per example are the primary one's.

        A value that an earlier metric has under the same name is called after its own too: `accuracy (exact-match)`.
        """
        first, *others = (scored(metric, predictions, examples) for metric in self.metrics())
        values = dict(first.values)
        for name, other in zip(self.also, others, strict=True):
            values |= {f"{key} ({name})" if key in values else key: value for key, value in other.values.items()}
        return Scores(values, first.per_example)

    def constant_answer(self, examples: Sequence[Example]) -> str:
        """The most frequent answer (soft answers count by their score); the first in the alphabet wins a tie."""
        counts: defaultdict[str, float] = defaultdict(float)
        for example in examples:
            for answer, score in example.targets:
                counts[answer] += score
        return min(counts, key=lambda answer: (-counts[answer], answer), default="")

    def majority(self, train: Sequence[Example], test: Sequence[Example]) -> float:
        """Primary score on `test` of giving every question the commonest training answer to questions of its kind.

        Kinds that training lacks get the commonest answer of all. What a model without images and without words beyond
        the kind of question can reach.
        """
        by_kind = defaultdict(list)
        for example in train:
            by_kind[example.kind].append(example)
        overall = self.constant_answer(train)
        answers = {kind: self.constant_answer(group) for kind, group in by_kind.items()} if len(by_kind) > 1 else {}
        constant = {example.id: answers.get(example.kind, overall) for example in test}
        return scored(self.metrics()[0], constant, test).primary


def check_pictures(tasks: Sequence[Task]) -> None:
    """Raises UserError, in one line, where a backbone that is fed with pixels could not be shown a task's images."""
    if without := [task.name for task in tasks if not task.pictures]:
        raise UserError(
            f"{', '.join(without)}: there are features of clips and no pictures, and the backbone is fed with pixels; "
            "take one that is fed with features"
        )


ATTRIBUTES = {
    "loss": Loss,
    "max_text": Optional[PositiveInt],  # noqa: UP045  Annotated has no | for a checker
    "max_target": Optional[PositiveInt],  # noqa: UP045
    "batch_ratio": Annotated[float, Field(gt=0, allow_inf_nan=False)],
    "decoding": Generate | Choose,
    "metric": Text,
    "also": tuple[str, ...],
    "higher_is_better": bool,
    "masks_empty": bool,
    "closed": bool,
    "pictures": bool,
    "origins": dict[str, str],
    "hub": tuple[str, str, str] | None,
    "picture_name": re.Pattern[str] | None,
    "submission": Callable[..., Any] | None,
}


def faults(plugin: Any) -> Iterator[str]:
    """What keeps a class from being a task, a line each."""
    if not issubclass(plugin, Task):
        yield "it does not extend pet_bench.data.task.Task"
        return
    yield from option_faults(plugin)
    yield from attribute_faults(plugin, ATTRIBUTES)
    options = getattr(plugin, "__pydantic_fields__", {})
    if absent := [name for name in ("prompt", "train", "valid", "test") if name not in options]:
        yield f"the options {', '.join(absent)} are missing"
    if required := [name for name, option in options.items() if option.is_required()]:
        yield f"the options {', '.join(required)} have no default"


def annotation_files(task: Task, root: Path | str, split: Split) -> list[Path]:
    """What `sources` gives, wherever a root has its annotations; raises PluginError where it fails."""
    return ask(task, "sources", annotations_of(Path(root)), split, returns=list[Path])


def open_hdf5(path: Path) -> h5py.File:
    """An HDF5 file to read, without a lock: not every file system has them, and a writer may hold one."""
    return h5py.File(path, "r", locking=False)


def absent(path: Path) -> bool:
    """Whether there is no such file; one that cannot be looked at is for its reader to complain of."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _same(one: Example, other: Example) -> bool:
    return (one.text, one.images) == (other.text, other.images)


def data_fingerprint(root: Path | str, tasks: Iterable[Task], store: str, splits: Iterable[Split]) -> str:
    """Twelve hex digits that change with any annotation file that is read and any feature that is packed."""
    root = Path(root)
    wanted: list[tuple[Task, Split]] = [(task, split) for task in tasks for split in splits if getattr(task, split)]
    files = sorted({path for task, split in wanted for path in annotation_files(task, root, split)})
    listing = "\n".join(f"{file_hash(path)} {path.relative_to(annotations_of(root)).as_posix()}" for path in files)
    return sha256(f"{listing}\n{store}".encode()).hexdigest()[:12]


def file_hash(path: Path) -> str:
    status = path.stat()
    return _file_hash(path, status.st_size, status.st_mtime_ns)


@lru_cache
def _file_hash(path: Path, size: int, mtime: int) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
