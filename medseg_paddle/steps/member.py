"""One of the processes of a training: ``python -m medseg_paddle.steps.member SOCKET``, see `together`."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from medseg_paddle.errors import MedsegError
from medseg_paddle.steps.together import Task

if TYPE_CHECKING:
    from medseg_paddle.engine.ranks import Ranks

_PARENT_GONE = 1  # exit code


class Member:
    """A process among those that train together, and its way to the one that the user has started.

    Parameters
    ----------
    address : str
        Socket of the parent.
    rank : int
    """

    def __init__(self, address: str, rank: int) -> None:
        self.rank = rank
        self._private = Path(address).parent
        self._pipe: Connection = Client(address, "AF_UNIX")
        self._sending = threading.Lock()
        self._pipe.send((rank, os.getpid()))
        self.task: Task = self._pipe.recv()
        self._go: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._met: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @property
    def listener(self) -> RemoteListener:
        """Passes on what the first process's listener is told."""
        return RemoteListener(self.send if self.first else None)

    def join(self) -> Ranks:
        """Meet the others, once all have set their device."""
        from medseg_paddle.engine.ranks import join

        self.send("ready", _free_port() if self.first else 0)
        return join(self.rank, self.task.processes.count, self._go.get(), self.meet)

    def meet(self) -> None:
        """Return when all processes have called this."""
        self.send("came", None)
        self._met.get()

    def send(self, kind: str, content: Any) -> None:
        """Tell the parent."""
        with self._sending, contextlib.suppress(OSError):  # that it is gone is heard by the other thread
            self._pipe.send((kind, content))

    def wait(self) -> None:
        """Until the parent needs this process no more; does not return."""
        self._hearing.join()

    def write(self, text: str) -> int:
        """In place of standard error: what is written there is for the user."""
        self.send("said", text)
        return len(text)

    def flush(self) -> None:
        """All is sent at once."""

    def _hear(self) -> None:
        try:
            while True:
                kind, content = self._pipe.recv()
                if kind == "go":
                    self._go.put(content)
                elif kind == "met":
                    self._met.put(None)
                elif kind == "stop":
                    os.kill(os.getpid(), signal.SIGTERM)
                else:
                    os._exit(0)
        except (EOFError, OSError):
            shutil.rmtree(self._private, ignore_errors=True)  # a parent that was killed has left it
            # At once: what a stop needs, the parent has asked for before. The processes that load images end with
            # their pipes, and no C++ destructor waits for a process that is gone.
            os._exit(_PARENT_GONE)


class RemoteListener:
    """A listener elsewhere; see :class:`medseg_paddle.engine.listener.Listener`."""

    def __init__(self, send: Callable[[str, Any], None] | None) -> None:
        self._send = send
        self.ended_by: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        def tell(*words: Any, **options: Any) -> None:
            if self._send is not None:
                self._send("listener", (name, words, options))

        return tell


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _prepare(task: Task, rank: int) -> None:
    """Settings that must stand before Paddle is loaded."""
    sys.argv = list(task.command)
    # The launcher's copy of the environment, which may hold passwords, is not kept; nothing is missing here.
    os.environ.pop("PADDLE_BACKUP_ENV_PATH", None)
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if task.processes.devices:
        if task.visible_gpus is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = task.visible_gpus
        os.environ["FLAGS_selected_gpus"] = str(task.processes.devices[rank])  # noqa: SIM112  (Paddle's)
        os.environ["PADDLE_DISTRI_BACKEND"] = "nccl"
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
    # Both look for a network card otherwise, and find none in a container without a network.
    loopback = "lo" if sys.platform == "linux" else "lo0"
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, loopback)
    from medseg_paddle.engine.startup import start_paddle

    start_paddle(task.threads)


def main(address: str) -> None:
    """Train, and tell the parent how it ended."""
    from medseg_paddle.steps.train import train_as

    member = Member(address, int(os.environ["PADDLE_TRAINER_ID"]))
    if member.first:
        sys.stderr = member
    outcome: int | Exception | None = None
    try:
        _prepare(member.task, member.rank)
        train_as(member)
    except MedsegError as error:
        outcome = error
    except KeyboardInterrupt:
        outcome = 128 + signal.SIGINT
    except SystemExit as end:
        outcome = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  (a defect of ours: the parent shows where it was)
        outcome = RuntimeError(f"in process {member.rank + 1}:\n{traceback.format_exc()}")
    member.send("outcome", outcome)
    member.wait()


if __name__ == "__main__":
    main(sys.argv[1])
