"""What to do about a training's speed. Each piece of advice rests on a figure that was measured, and names it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_MUCH_WAITING = 0.2
_MANY_CONVOLUTIONS = 0.2
_MUCH_INTERPOLATION = 0.05
_MUCH_BETWEEN = 0.3
_OTHERS_AT_WORK = 0.7
_LITTLE_MEMORY = 0.4
_FILLED = 0.8  # of a GPU's memory, after a larger batch
_GIB = 2**30


@dataclass(frozen=True)
class Measured:
    """The figures that advice rests on.

    Attributes
    ----------
    device : str
        ``"cpu"`` or ``"gpu:N"``.
    cpu_kernels : str
        As the training says it; ``""`` on a GPU.
    precision : str
    batch_size, num_workers : int
    threads, cores : int
        Threads of the maths libraries, and cores that the process may use.
    cores_used : float
        Processor time by wall time of the training's process.
    images, images_decoded : int
        Training images, and those that are kept decoded.
    seconds : float
        Of an iteration.
    waiting : float
        Share of it spent waiting for images.
    between : float
        Share of it in neither operators nor waiting: Python between them. On a GPU, which computes beside
        Python, it says little.
    shares : dict
        Operator to its share of the traced time.
    bf16_gains : bool
        Whether this CPU multiplies matrices in bf16.
    gpu_memory, gpu_memory_peak : int
        Bytes of the GPU, and the most that was allocated there; 0 without one.
    """

    device: str
    cpu_kernels: str
    precision: str
    batch_size: int
    num_workers: int
    threads: int
    cores: int
    cores_used: float
    images: int
    images_decoded: int
    seconds: float
    waiting: float
    between: float
    shares: dict[str, float]
    bf16_gains: bool = False
    gpu_memory: int = 0
    gpu_memory_peak: int = 0

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return self.device != "cpu"

    def share(self, *words: str, other_than: str = "\0") -> float:
        """Share of the operators whose names hold one of `words`."""
        return sum(
            share
            for name, share in self.shares.items()
            if any(word in name for word in words) and other_than not in name
        )


@dataclass(frozen=True)
class Advice:
    """One thing to do.

    Attributes
    ----------
    topic : str
        For a program: machine, loader, cache, threads, cpu_kernels, image_size, batch_size, precision.
    text : str
        For people, with the figure it rests on.
    """

    topic: str
    text: str


def advise(of: Measured) -> list[Advice]:
    """All advice whose condition holds; the most promising first."""
    return [
        *_on_the_machine(of),
        *_on_loading(of),
        *_on_the_processor(of),
        *_on_the_gpu(of),
        *_on_the_batch(of),
    ]


def waiting_advice(waiting: float, num_workers: int, cores: int) -> str:
    """What to do about a training that waits for images.

    Parameters
    ----------
    waiting : float
        Share of the time, 0..1.
    num_workers, cores : int
        Processes that load images, and cores that they can have.
    """
    said = f"{waiting:.0%} of the time goes into waiting for images"
    if num_workers < cores:
        more = min(max(2 * num_workers, 2), cores)
        return f"{said}: num_workers: {more} in the recipe loads faster (now {num_workers})"
    return (
        f"{said}; {num_workers} processes have {cores} cores, and more would not help: keep more images decoded "
        "(cache_mb), or take dear transforms out"
    )


def _on_the_machine(of: Measured) -> Iterator[Advice]:
    # Whoever does not wait keeps at least one core busy, if it is given one.
    if not of.on_gpu and of.cores_used + of.waiting < _OTHERS_AT_WORK:
        yield Advice(
            "machine",
            f"the training had {of.cores_used:.1f} cores' time, though it waited for images {of.waiting:.0%} of the "
            "time: other programs, or a container's limit, took the rest. Measure again when the machine is free",
        )


def _on_loading(of: Measured) -> Iterator[Advice]:
    if of.waiting < _MUCH_WAITING:
        return
    yield Advice("loader", waiting_advice(of.waiting, of.num_workers, of.cores))
    if of.images_decoded < of.images:
        yield Advice(
            "cache",
            f"{of.images_decoded} of {of.images} images are kept decoded, the others are decoded each time: a larger "
            "train_dataset.cache_mb, or more room in TMPDIR, saves that",
        )


def _on_the_processor(of: Measured) -> Iterator[Advice]:
    if of.on_gpu:
        return
    if of.threads < of.cores and of.waiting < _MUCH_WAITING:
        yield Advice(
            "threads",
            f"it computes in {of.threads} of {of.cores} cores' threads and kept {of.cores_used:.1f} cores busy: set "
            f"OMP_NUM_THREADS={of.cores}, or leave it unset",
        )
    elif of.threads > of.cores:
        yield Advice(
            "threads",
            f"{of.threads} threads take turns on {of.cores} core(s): set OMP_NUM_THREADS={of.cores}, or leave it unset",
        )
    convolutions = of.share("conv", other_than="oneDNN")
    if not of.cpu_kernels.startswith("oneDNN") and convolutions >= _MANY_CONVOLUTIONS:
        yield Advice(
            "cpu_kernels",
            f"{convolutions:.0%} of the time goes into convolutions by {of.cpu_kernels}: oneDNN's are several times "
            "faster, `cpu_kernels: auto` takes them where they can be used",
        )
    in_fp32 = of.share("conv") if of.precision == "fp32" and of.cpu_kernels.startswith("oneDNN") else 0.0
    if of.bf16_gains and in_fp32 >= _MANY_CONVOLUTIONS:
        yield Advice(
            "precision",
            f"{in_fp32:.0%} of the time goes into convolutions in fp32: this processor needs less than half "
            "of that with `precision: bf16`",
        )
    interpolation = of.share("interp", other_than="oneDNN")
    if of.cpu_kernels.startswith("oneDNN") and interpolation >= _MUCH_INTERPOLATION:
        yield Advice(
            "image_size",
            f"{interpolation:.0%} of the time goes into Paddle's own interpolation, since not every level is exactly "
            "doubled: a patch size that is a multiple of 2 to the power of the network's depth (of 16, or of 32) "
            "lets oneDNN do it",
        )


def _on_the_gpu(of: Measured) -> Iterator[Advice]:
    if not of.on_gpu:
        return
    products = of.share("conv", "matmul")
    if of.precision == "fp32" and products >= _MANY_CONVOLUTIONS:
        yield Advice(
            "precision",
            f"{products:.0%} of the GPU's time goes into convolutions and products in fp32: `precision: fp16` computes "
            "them in half precision",
        )


def _on_the_batch(of: Measured) -> Iterator[Advice]:
    if of.on_gpu and 0 < of.gpu_memory_peak < _LITTLE_MEMORY * of.gpu_memory:
        fitting = int(of.batch_size * _FILLED * of.gpu_memory / of.gpu_memory_peak)
        yield Advice(
            "batch_size",
            f"the most memory in use was {of.gpu_memory_peak / _GIB:.1f} of {of.gpu_memory / _GIB:.1f} GiB: about "
            f"batch_size: {fitting} fits, and a larger batch keeps the GPU busier (it is another training: adapt the "
            "learning rate)",
        )
    elif not of.on_gpu and of.between >= _MUCH_BETWEEN and of.waiting < _MUCH_WAITING:
        yield Advice(
            "batch_size",
            f"{of.between:.0%} of an iteration ({1000 * of.between * of.seconds:.0f} ms) is neither in operators nor "
            "waiting, but Python between them: with a larger batch_size it is spent less often (it is another "
            "training: adapt the learning rate)",
        )
