"""Advice is given where its figure says so, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medseg_paddle.steps.profile_advice import Measured, advise

WELL = Measured(
    device="cpu",
    cpu_kernels="oneDNN 3.6.2",
    precision="fp32",
    batch_size=8,
    num_workers=0,
    threads=2,
    cores=2,
    cores_used=1.8,
    images=100,
    images_decoded=100,
    seconds=0.5,
    waiting=0.01,
    between=0.05,
    shares={"conv2d (oneDNN)": 0.6, "relu": 0.1, "bilinear_interp (oneDNN)": 0.1},
)
GPU = replace(
    WELL,
    device="gpu:0",
    cpu_kernels="",
    shares={"conv2d": 0.7, "conv2d_grad": 0.2},
    gpu_memory=16 * 2**30,
    gpu_memory_peak=12 * 2**30,
    precision="fp16",
)


def topics(measured: Measured) -> list[str]:
    return [advice.topic for advice in advise(measured)]


def test_nothing_is_advised_where_nothing_is_wrong():
    assert topics(WELL) == topics(GPU) == topics(replace(WELL, bf16_gains=True, precision="bf16")) == []


@pytest.mark.parametrize(
    ("measured", "topic", "figure"),
    [
        (
            replace(WELL, cores_used=0.4),
            "machine",
            "had 0.4 cores' time, though it waited for images 1%",
        ),
        (replace(WELL, waiting=0.4), "loader", "40% of the time goes into waiting"),
        (replace(WELL, threads=1, cores_used=0.97), "threads", "kept 1.0 cores busy: set OMP_NUM_THREADS=2"),
        (replace(WELL, threads=4), "threads", "4 threads take turns on 2 core(s)"),
        (
            replace(WELL, cpu_kernels="Paddle", shares={"conv2d": 0.5, "conv2d_grad": 0.25}),
            "cpu_kernels",
            "75% of the time goes into convolutions by Paddle",
        ),
        (
            replace(
                WELL, shares={"conv2d (oneDNN)": 0.5, "bilinear_interp": 0.04, "bilinear_interp_grad": 0.08}
            ),
            "image_size",
            "12% of the time goes into Paddle's own interpolation",
        ),
        (replace(WELL, between=0.4), "batch_size", "40% of an iteration (200 ms)"),
        (replace(WELL, bf16_gains=True), "precision", "60% of the time goes into convolutions in fp32"),
        (replace(GPU, precision="fp32"), "precision", "90% of the GPU's time"),
        (replace(GPU, gpu_memory_peak=2 * 2**30), "batch_size", "2.0 of 16.0 GiB: about batch_size: 51 fits"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_each_piece_of_advice_names_its_figure(measured, topic, figure):
    (advice,) = advise(measured)
    assert advice.topic == topic
    assert figure in advice.text


def test_a_loader_that_decodes_each_time_is_told_of_the_cache():
    assert topics(replace(WELL, waiting=0.4, images_decoded=60)) == ["loader", "cache"]


def test_cores_are_no_advice_while_images_are_waited_for():
    assert topics(replace(WELL, threads=1, waiting=0.5)) == ["loader"]


def test_what_is_for_a_processor_is_not_said_of_a_gpu():
    assert topics(replace(GPU, threads=1, between=0.9)) == []
