# One image for every command. Two targets, with the same packages around different builds of Paddle:
#   gpu  the official PaddlePaddle CUDA image; other CUDA versions by --build-arg PADDLE_IMAGE=...
#   cpu  slim Python with the CPU build. 3.10 as in the CUDA images: the lock's versions depend on it.
# and `notebook`, JupyterLab on top of either (--build-arg NOTEBOOK_BASE=cpu).
ARG PADDLE_IMAGE=paddlepaddle/paddle:3.2.2-gpu-cuda11.8-cudnn8.9
ARG PYTHON_IMAGE=python:3.10-slim-bookworm
ARG NOTEBOOK_BASE=gpu

# ---- packages: rebuilt when a lock changes, not when the source does
FROM ${PADDLE_IMAGE} AS gpu-packages
# The lock without Paddle: the base's is kept. A base without Paddle takes cpu.lock.
ARG LOCK=gpu.lock
RUN --mount=type=bind,source=docker/install-packages.sh,target=/install.sh \
    --mount=type=bind,source=requirements,target=/requirements \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf \
    sh /install.sh "/requirements/${LOCK}"

FROM ${PYTHON_IMAGE} AS cpu-packages
# libgomp1: Paddle's kernels are threaded with OpenMP. Not pinned, Debian keeps one version a release. A base that
# has it needs no Debian mirror.
# hadolint ignore=DL3008
RUN test -e "/usr/lib/$(uname -m)-linux-gnu/libgomp.so.1" || { apt-get update && \
    apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*; }
RUN --mount=type=bind,source=docker/install-packages.sh,target=/install.sh \
    --mount=type=bind,source=requirements,target=/requirements \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf \
    sh /install.sh /requirements/cpu.lock

# ---- the application, the same words on both
FROM gpu-packages AS gpu
RUN --mount=type=bind,target=/src,rw sh /src/docker/install-application.sh
WORKDIR /work
COPY configs configs
COPY tools/*.py tools/
ARG REVISION=unknown
LABEL org.opencontainers.image.title="medseg-paddle" \
      org.opencontainers.image.description="Medical image segmentation with PaddlePaddle, for NVIDIA GPUs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
# Nothing is written outside /work/data, /work/outputs and /tmp, so the root may be read-only.
ENV PATH=/opt/medseg/bin:$PATH HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1 \
    MEDSEG_REVISION=${REVISION} MEDSEG_DEVICE=gpu
USER 1000:1000
ENTRYPOINT ["medseg"]
CMD ["--help"]

FROM cpu-packages AS cpu
RUN --mount=type=bind,target=/src,rw sh /src/docker/install-application.sh
WORKDIR /work
COPY configs configs
COPY tools/*.py tools/
ARG REVISION=unknown
LABEL org.opencontainers.image.title="medseg-paddle" \
      org.opencontainers.image.description="Medical image segmentation with PaddlePaddle, for machines without GPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/medseg/bin:$PATH HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1 \
    MEDSEG_REVISION=${REVISION} MEDSEG_DEVICE=cpu
USER 1000:1000
ENTRYPOINT ["medseg"]
CMD ["--help"]

# ---- JupyterLab
# hadolint ignore=DL3006
FROM ${NOTEBOOK_BASE} AS notebook
USER 0:0
RUN --mount=type=bind,source=docker/install-packages.sh,target=/install.sh \
    --mount=type=bind,source=requirements,target=/requirements \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf \
    sh /install.sh /requirements/notebook.lock
USER 1000:1000
ENV JUPYTER_PORT=8888
EXPOSE 8888
# The empty ProxyHandler: a proxy set in the environment must not be asked for this machine.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['JUPYTER_PORT'] + '/api', timeout=4)"]
# A token is asked for: JUPYTER_TOKEN, or one made up at start and printed in the log. No questions to the makers'
# servers about updates, news and extensions.
ENTRYPOINT ["jupyter", "lab", "--no-browser", "--ip=0.0.0.0", "--ServerApp.root_dir=/work", \
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None", \
    "--LabApp.extension_manager=readonly"]
CMD []
