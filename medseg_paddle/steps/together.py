"""One training by several processes, as the process sees it that the user has started.

It looks at what can be looked at without Paddle, lets `paddle.distributed.launch` start the others
(:mod:`medseg_paddle.steps.member`), shows what the first of them does, passes a stop on to them, and ends them all
where one is lost. They talk over a socket in a private folder; if this process is gone, they end.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from medseg_paddle.config import Recipe
from medseg_paddle.core.cores import available_cores
from medseg_paddle.engine.interruption import StopSignals
from medseg_paddle.errors import MedsegError, RecipeError, SetupError

_GRACE = 5.0  # seconds that the others have to say what happened to them, once one has failed
_LOOK = 0.1  # seconds between two looks at signals
_START = 600.0  # seconds until all processes have loaded Paddle and read the recipe
# Of files that the launcher writes: the environment, which may hold passwords.
_ENVIRONMENTS = ("envlog.*", "backup_env.*", "*.log")
_LAST_WORDS = 400  # characters


@dataclass(frozen=True)
class Processes:
    """How many processes train, and where.

    Attributes
    ----------
    count : int
    devices : tuple of int
        GPUs, as Paddle numbers them; empty for the CPU.
    """

    count: int
    devices: tuple[int, ...] = ()

    @property
    def option(self) -> str:
        """What the user has asked for, as on the command line."""
        return f"--devices {','.join(map(str, self.devices))}" if self.devices else f"--nproc {self.count}"

    def placed(self, recipe: Recipe) -> Recipe:
        """The recipe on these devices.

        Raises
        ------
        RecipeError
            It asks for another device, for an `alignment`, or its batch cannot be shared out.
        """
        device = "gpu" if self.devices else "cpu"
        if recipe.device not in ("auto", device):
            other = "--nproc 2" if self.devices else "--devices 0,1"
            raise RecipeError(
                f"{self.option} trains on the {device.upper()}, and `device: {recipe.device}` is asked for",
                hint=f"give {other} for several processes there, or leave `device` out",
            )
        if recipe.alignment is not None:
            raise RecipeError(
                f"{self.option}: `alignment` is trained by one process",
                hint="train by one process, or leave `alignment` out",
            )
        batch, count = recipe.batch_size, self.count
        if batch % count:
            near = sorted({max(batch // count, 1) * count, -(-batch // count) * count})
            raise RecipeError(
                f"a batch of {batch} images cannot be shared out evenly to {count} processes",
                hint=f"set batch_size to {' or '.join(map(str, near))}, or start another number of processes",
            )
        return recipe.model_copy(update={"device": device})


def processes_wanted(nproc: int | None, devices: Sequence[int] | None) -> Processes | None:
    """What ``--nproc`` and ``--devices`` ask for; None for a training in this process.

    Raises
    ------
    RecipeError
        They contradict each other, or name no processes.
    """
    if nproc is not None and devices is not None:
        raise RecipeError(
            "--nproc is for processes on the CPU, --devices for one on each GPU",
            hint="give one of them",
        )
    if devices is not None:
        if not devices or len(set(devices)) < len(devices) or min(devices) < 0:
            raise RecipeError(
                f"--devices {','.join(map(str, devices))} is no list of different GPUs",
                hint="write their numbers, as `medseg doctor` shows them, once each: --devices 0,1",
            )
        return Processes(len(devices), tuple(devices))
    if nproc is not None and nproc < 1:
        raise RecipeError(f"--nproc {nproc}: a training needs a process", hint="write 1 or more")
    return None if nproc is None or nproc == 1 else Processes(nproc)


@dataclass(frozen=True)
class Task:
    """What each process is to do.

    Attributes
    ----------
    recipe : Recipe
    folder : Path
    resume, overwrite, end_at
        As `train` and `fit` take them. The clock of `end_at` is one for all processes of a machine.
    processes : Processes
    threads : int
        Of the maths libraries of one process.
    command : tuple of str
        What the user has typed, for the run's provenance.
    visible_gpus : str or None
        ``CUDA_VISIBLE_DEVICES`` as the user has set it.
    """

    recipe: Recipe
    folder: Path
    resume: bool
    overwrite: bool
    end_at: float
    processes: Processes
    threads: int
    command: tuple[str, ...]
    visible_gpus: str | None


def train_together(
    recipe: Recipe,
    folder: Path,
    processes: Processes,
    listener: Any,
    stop: StopSignals,
    *,
    resume: bool,
    overwrite: bool,
    end_at: float,
) -> None:
    """Train a recipe by several processes.

    Parameters
    ----------
    recipe : Recipe
        See :meth:`Processes.placed`.
    folder : Path
        The run's.
    processes : Processes
    listener : Listener
        Told what the first process's is told.
    stop : StopSignals
        A first signal lets the processes save a checkpoint and end.
    resume, overwrite, end_at
        As `train` takes them.

    Raises
    ------
    MedsegError
        What one process would have raised; SetupError where a process was lost, for example killed.
    SystemExit
        A process other than this one was told to end.
    """
    task = Task(
        recipe,
        folder,
        resume,
        overwrite,
        end_at,
        processes,
        max(1, available_cores() // processes.count),
        tuple(sys.argv),
        os.environ.get("CUDA_VISIBLE_DEVICES"),
    )
    with tempfile.TemporaryDirectory(prefix="medseg-") as private, stop.deferred():
        _Team(task, Path(private), listener, stop).work()


class _Lost(Exception):  # noqa: N818  (an outcome)
    """A process that has ended without a word."""


class _Team:
    """The processes of a training, and what each has come to."""

    def __init__(self, task: Task, private: Path, listener: Any, stop: StopSignals) -> None:
        self._task, self._private, self._listener, self._stop = task, private, listener, stop
        self._events: queue.SimpleQueue[tuple[int, str, Any]] = queue.SimpleQueue()
        self._pipes: dict[int, Connection] = {}
        self._pids: dict[int, int] = {}
        self._hearing: list[threading.Thread] = []
        self._ready: dict[int, int] = {}
        self._came = 0  # how often one came to meet the others
        # None: done; an exit code: stopped; else what it raised. In the order in which they came.
        self._outcomes: dict[int, int | Exception | None] = {}

    def work(self) -> None:
        """Start the processes, follow them, and end what is left of them."""
        try:
            address = str(self._private / "socket")
            with Listener(address, "AF_UNIX", backlog=self._task.processes.count) as door:
                threading.Thread(target=self._let_in, args=(door,), daemon=True).start()
                with self._launched(address) as launcher:
                    self._follow(launcher)
        except OSError as error:
            raise SetupError(
                f"the processes of a training cannot talk in {self._private}: {error}",
                hint="name a folder with a short name that can be written as TMPDIR",
            ) from error

    @contextlib.contextmanager
    def _launched(self, address: str) -> Iterator[subprocess.Popen[bytes]]:
        count = self._task.processes.count
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
        # The launcher hands GPUs out, one to a process; each takes its own, see `member`.
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(count)))
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            # More than its share of the cores helps no process: not where a user has set it, nor where an earlier
            # step of this process has.
            if environment.get(name, "").isdecimal():
                environment[name] = str(min(int(environment[name]), self._task.threads))
        for name in ("PADDLE_TRAINER_ID", "PADDLE_MASTER", "PADDLE_NNODES", "PADDLE_DEVICES"):
            environment.pop(name, None)
        command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(count)]
        # With addresses given, it asks no name service for this machine's own.
        command += ["--ips", "127.0.0.1", "--log_dir", str(self._private), "--enable_gpu_log", "0"]
        command += [sys.executable, "-m", "medseg_paddle.steps.member", address]
        with (self._private / "launcher").open("wb") as said:
            launcher = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process, which passes it on
            )
        try:
            yield launcher
        finally:
            for rank, pid in self._pids.items():
                if rank not in self._outcomes or isinstance(self._outcomes[rank], Exception):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self._tell("leave", None)
            end = time.monotonic() + _GRACE
            for hearing in self._hearing:
                hearing.join(max(end - time.monotonic(), 0))
            for pipe in self._pipes.values():
                pipe.close()
            if len(self._pids) < count:  # some may be about to start: let it end them
                launcher.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    launcher.wait(_GRACE)
            launcher.kill()
            launcher.wait()

    def _let_in(self, door: Listener) -> None:
        with contextlib.suppress(OSError):  # closed: the training has ended
            for _ in range(self._task.processes.count):
                pipe = door.accept()
                self._hearing.append(threading.Thread(target=self._hear, args=(pipe,), daemon=True))
                self._hearing[-1].start()

    def _hear(self, pipe: Connection) -> None:
        rank = -1
        try:
            rank, self_id = pipe.recv()
            self._pids[rank], self._pipes[rank] = self_id, pipe
            pipe.send(self._task)
            while True:
                self._events.put((rank, *pipe.recv()))
        except (EOFError, OSError):
            if rank >= 0:
                self._events.put((rank, "gone", None))

    def _follow(self, launcher: subprocess.Popen[bytes]) -> None:
        """Until each process has come to an end, or one has failed and the others had time to say so."""
        told, failed_at = False, 0.0
        begun = time.monotonic()
        while len(self._outcomes) < self._task.processes.count:
            started = len(self._ready) == self._task.processes.count
            if self._stop.wanted and not told:
                if not started:
                    return  # nothing is begun
                told = True
                self._tell("stop", None)
            if failed_at and time.monotonic() > failed_at + _GRACE:
                break
            try:
                rank, kind, content = self._events.get(timeout=_LOOK)
            except queue.Empty:
                if launcher.poll() is not None and not (started or failed_at):
                    raise self._not_started(f"ended with code {launcher.returncode}") from None
                if not started and not failed_at and time.monotonic() > begun + _START:
                    raise self._not_started(f"has not brought them up in {_START:.0f} s") from None
                continue
            self._take(rank, kind, content)
            if not failed_at and any(isinstance(outcome, Exception) for outcome in self._outcomes.values()):
                failed_at = time.monotonic()
        self._judge()

    def _take(self, rank: int, kind: str, content: Any) -> None:
        if kind == "listener":
            name, words, options = content
            getattr(self._listener, name)(*words, **options)
        elif kind == "said":
            sys.stderr.write(content)
        elif kind == "ready":
            self._ready[rank] = content
            if len(self._ready) == self._task.processes.count:
                self._forget_environments()
                self._tell("go", self._ready[0])
        elif kind == "came":
            self._came += 1
            if self._came % self._task.processes.count == 0:
                self._tell("met", None)
        elif kind == "outcome":
            self._outcomes.setdefault(rank, content)
        elif kind == "gone":
            self._outcomes.setdefault(rank, _Lost())

    def _tell(self, kind: str, content: Any) -> None:
        for pipe in self._pipes.values():
            with contextlib.suppress(OSError):  # that it is gone is heard elsewhere
                pipe.send((kind, content))

    def _judge(self) -> None:
        """Raise what there is to raise: of several errors the first that says what to do."""
        for kind in (MedsegError, _Lost, Exception):
            for rank, outcome in self._outcomes.items():
                if isinstance(outcome, _Lost) and kind is _Lost:
                    raise self._lost(rank)
                if isinstance(outcome, kind):
                    raise outcome
        codes = [outcome for outcome in self._outcomes.values() if isinstance(outcome, int)]
        if codes and not self._stop.wanted:
            raise SystemExit(codes[0])

    def _lost(self, rank: int) -> SetupError:
        count, words = self._task.processes.count, self._last_words(f"workerlog.{rank}")
        return SetupError(
            f"process {rank + 1} of {count} was killed or has crashed{words}; the others were ended",
            hint="the system kills where memory runs out: start fewer processes, or set a lower num_workers; the run "
            "goes on from its last checkpoint with --resume",
        )

    def _not_started(self, what: str) -> SetupError:
        return SetupError(
            f"paddle.distributed.launch, which is to start {self._task.processes.count} processes, {what}"
            f"{self._last_words('launcher')}",
            hint=f"see whether one process can train, without {self._task.processes.option}",
        )

    def _last_words(self, name: str) -> str:
        try:
            text = (self._private / name).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""
        return f" ({text.splitlines()[-1][-_LAST_WORDS:]})" if text else ""

    def _forget_environments(self) -> None:
        for pattern in _ENVIRONMENTS:
            for file in self._private.glob(pattern):
                file.unlink(missing_ok=True)
