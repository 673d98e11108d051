"""What trackers see of a grid run, through Ray's own callbacks (see `loggers.py`)."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import redirect_stdout
from contextvars import copy_context
from io import StringIO
from pathlib import Path
from typing import Any, cast

import ray
from ray.air.constants import TRAINING_ITERATION
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.logger import LoggerCallback, TBXLoggerCallback

from pet_bench.errors import UserError
from pet_bench.results import store
from pet_bench.spec import TrialSpec, plain

PATIENCE = 300  # seconds that the end of a grid waits for uploads
SPARSE = {"mlflow": 10.0}  # seconds between two training reports of a trial: each is several requests


def first_line(error: BaseException) -> str:
    error = getattr(error, "cause", None) or error  # Ray's says where before it says what
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"recipe": {"lr": 0.1}, "tasks": ["vqa", "gqa"]}` → `{"recipe.lr": 0.1, "tasks": "[vqa, gqa]"}`."""
    one_level: dict[str, Any] = {}
    for key, value in data.items():
        nested = isinstance(value, dict) and value
        one_level |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: _scalar(value)}
    return one_level


def _scalar(value: Any) -> Any:
    return value if isinstance(value, str | int | float | None) else plain(value)


def scalars(progress: dict[str, Any]) -> dict[int, dict[str, float]]:
    """What a report holds, by update and tag; empty for one that has nothing to draw."""
    by_step: dict[int, dict[str, float]] = defaultdict(dict)
    if progress["phase"] == "train":
        named = {f"train/{key}": progress[key] for key in ("loss", "examples_per_second")}
        by_step[progress["step"]] |= {tag: value for tag, value in named.items() if value is not None}
    for point in progress["points"]:
        place = f"{point['split']}/{point['task']}" if point["task"] else point["split"]
        values = {f"{place}/{metric}": value for metric, value in point["metrics"].items()}
        by_step[point["step"]] |= values | ({} if point["loss"] is None else {f"{place}/loss": point["loss"]})
    if progress["score"] is not None:
        at = progress["points"][-1]["step"] if progress["points"] else progress["step"]
        by_step[at]["valid/score"] = progress["score"]
    return {step: values for step, values in sorted(by_step.items()) if values}


class Shown:
    """A trial as Ray's callbacks see it: what they read of Tune's, under the names that are known outside."""

    evaluated_params: dict[str, Any] = {}  # noqa: RUF012  none: TensorBoard would make a second run of them
    checkpoint = None

    def __init__(self, spec: TrialSpec, folder: Path, grid_name: str):
        self.name, self.trial_id, self.experiment_dir_name = str(spec), spec.id, grid_name
        self.local_path = str(folder)
        self.config = {"id": spec.id, **flat(spec.to_dict())}

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self.name


class Tracker(Callback):
    """Hands the reports of a grid's trials on to one of Ray's callbacks, until that fails."""

    def __init__(self, name: str, inner: LoggerCallback, out: Path, grid_name: str, say: Callable[[str], None]):
        self.name, self.out, self.grid_name, self.say = name, Path(out), grid_name, say
        self.inner: LoggerCallback | None = inner
        self.shown: dict[str, Shown] = {}  # by trial; a second attempt goes on with the first one's
        self.sent: dict[str, float] = {}  # when a training report was last handed on

    def __reduce__(self):  # Tune saves its callbacks; nobody reads that, and open files cannot be saved
        return Callback, ()

    def on_trial_start(self, iteration, trials, trial, **info):
        self.start(_spec(trial))

    def on_trial_result(self, iteration, trials, trial, result, **info):
        if "progress" in result:
            self.report(_spec(trial), result["progress"])

    def on_trial_complete(self, iteration, trials, trial, **info):
        self.end(_spec(trial))

    def on_trial_error(self, iteration, trials, trial, **info):
        self.end(_spec(trial), died=True)

    def on_experiment_end(self, trials, **info):
        self._pass_on(lambda inner: inner.on_experiment_end([]))

    def start(self, spec: TrialSpec) -> None:
        self._pass_on(lambda inner: self._start(inner, self._of(spec)))

    def report(self, spec: TrialSpec, progress: dict[str, Any]) -> None:
        """progress: a `results.schema.Progress` as plain data."""
        self._pass_on(lambda inner: self._report(inner, self._of(spec), progress))

    def end(self, spec: TrialSpec, *, died: bool = False) -> None:
        """The result file tells how it ended: a worker that met an error ends well, as far as Tune can see."""
        self._pass_on(lambda inner: self._end(inner, self._of(spec), died=died))

    def _pass_on(self, call: Callable[[LoggerCallback], None]) -> None:
        if self.inner is None:
            return
        try:
            call(self.inner)
        except Exception as error:
            self.inner = None
            self.say(f"--log {self.name} has stopped, the trials go on: {first_line(error)}")

    @staticmethod
    def _start(inner: LoggerCallback, shown: Shown) -> None:
        shown.init_local_path()
        inner.log_trial_start(cast(Trial, shown))

    def _report(self, inner: LoggerCallback, shown: Shown, progress: dict[str, Any]) -> None:
        now, validated = time.monotonic(), progress["score"] is not None or progress["points"]
        if not validated and now - self.sent.get(shown.trial_id, -1e9) < SPARSE.get(self.name, 0.0):
            return
        self.sent[shown.trial_id] = now
        for step, values in scalars(progress).items():
            inner.log_trial_result(0, cast(Trial, shown), {**values, TRAINING_ITERATION: step})

    def _end(self, inner: LoggerCallback, shown: Shown, *, died: bool) -> None:
        try:
            result = store.load(self.out / f"{shown.trial_id}.json")
        except UserError:
            result = None
        failed = died or result is None or result.status in ("failed", "oom")
        if result and not failed and result.cost and result.metrics:
            values = {
                f"test/{task}/{name}": score.value
                for task, metrics in result.metrics.items()
                for name, score in metrics.items()
            }
            values |= {} if result.average is None else {"test/average": result.average}
            inner.log_trial_result(0, cast(Trial, shown), {**values, TRAINING_ITERATION: result.cost.steps})
        inner.log_trial_end(cast(Trial, shown), failed=failed)

    def _of(self, spec: TrialSpec) -> Shown:
        if spec.id not in self.shown:
            folder = self.out / spec.id
            folder = folder / "tensorboard" if self.name == "tensorboard" else folder
            self.shown[spec.id] = Shown(spec, folder, self.grid_name)
        return self.shown[spec.id]


def _spec(trial: Trial) -> TrialSpec:
    return TrialSpec.from_dict(trial.config["job"]["spec"])


# Ray's callbacks, and one of ours ------------------------------------------------------------------------------------


class TensorBoard(TBXLoggerCallback):
    """Ray's callback with plain tags, and with a writer that raises where the disk is full."""

    def __init__(self):
        super().__init__()
        self._summary_writer_cls = Events

    def log_trial_result(self, iteration, trial, result):
        if trial not in self._trial_writer:
            self.log_trial_start(trial)
        step = result[TRAINING_ITERATION]
        for tag, value in result.items():
            if tag != TRAINING_ITERATION:
                self._trial_writer[trial].add_scalar(tag, value, step)


class Events:
    """A TensorBoard event file. Unlike `tensorboardX.SummaryWriter` it writes in the caller's thread: a full disk would
    kill the writer's, and the next event would wait for it for ever."""

    def __init__(self, folder: str, flush_secs: float):
        from tensorboardX.event_file_writer import EventsWriter

        suffix = f".{os.getpid()}.{time.time_ns()}"  # attempts may follow each other within a second
        self.writer = EventsWriter(str(Path(folder) / "events"), suffix)
        self.flushed, self.flush_secs = time.monotonic(), flush_secs

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]  # generated
        from tensorboardX.summary import scalar

        self.writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(tag, value)))
        if time.monotonic() - self.flushed >= self.flush_secs:
            self.writer.flush()
            self.flushed = time.monotonic()

    def close(self) -> None:
        self.writer.close()


def wandb(grid_name: str) -> LoggerCallback:
    """A trial's run id is its own id, so that a trial that goes on later goes on in its run."""
    from ray.air.integrations.wandb import WandbLoggerCallback

    class Wandb(WandbLoggerCallback):
        """What logs a trial is a process of its own, and nobody but us asks what it died of."""

        def log_trial_result(self, iteration, trial, result):
            super().log_trial_result(iteration, trial, result)
            ray.get(self._ended([self._trial_logging_futures[trial]]))

        def _cleanup_logging_actors(self, timeout=0, kill_on_timeout=False):
            ended = self._ended(list(self._trial_logging_futures.values()), timeout)
            if self._trial_logging_futures:
                super()._cleanup_logging_actors(0, kill_on_timeout)
            ray.get(ended)

        @staticmethod
        def _ended(futures: list, timeout: float = 0) -> list:
            return ray.wait(futures, num_returns=len(futures), timeout=timeout)[0] if futures else []

    return Wandb(project=grid_name, resume="allow", upload_timeout=PATIENCE)


def mlflow(grid_name: str) -> LoggerCallback:
    # by default a server that is gone would hold up the grid for a quarter of an hour before anything is said
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback(
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"), experiment_name=grid_name, save_artifact=False
    )


def trackio(grid_name: str) -> LoggerCallback:
    """Ray has none for it. A run for each trial, called as it is with its id, so that one that goes on later does so in
    its run; in the files of `TRACKIO_DIR`, or where Trackio's other variables say."""
    import trackio as package  # pyright: ignore[reportMissingImports]  # an extra

    class Trackio(LoggerCallback):
        def __init__(self):
            self.runs: dict[Trial, Any] = {}

        def log_trial_start(self, trial):
            if trial in self.runs:
                return
            with redirect_stdout(StringIO()):  # it greets
                # in a context of its own: `init` ends the run that was begun before it in the same one
                self.runs[trial] = copy_context().run(
                    package.init, project=grid_name, name=f"{trial} {trial.trial_id}", config=trial.config,
                    resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False,
                )  # fmt: skip

        def log_trial_result(self, iteration, trial, result):
            values = dict(result)
            self.runs[trial].log(values, step=values.pop(TRAINING_ITERATION))

        def log_trial_end(self, trial, failed=False):
            if run := self.runs.pop(trial, None):
                with redirect_stdout(StringIO()):
                    run.finish()

    return Trackio()


MAKERS: dict[str, Callable[[str], LoggerCallback]] = {
    "tensorboard": lambda grid_name: TensorBoard(),
    "wandb": wandb,
    "mlflow": mlflow,
    "trackio": trackio,
}
