# The whole replication in one image: docs/how-to/container.md says how it is built and run.
# The digest is recorded from public use; the image itself was never pulled.
ARG BASE_IMAGE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# What comes from Debian. Triton needs gcc and the headers: it compiles a launcher for each GPU
# kernel.
FROM ${BASE_IMAGE} AS system
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        gcc git libc6-dev make tini \
        latexmk texlive-latex-recommended texlive-fonts-recommended lmodern \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/cache/ldconfig \
    && useradd --create-home --uid 1000 replicate \
    && git config --system safe.directory '*' \
    && git config --system user.name replicate \
    && git config --system user.email replicate@localhost \
    && mkdir -p /cache/huggingface /work \
    && chmod 1777 /cache/huggingface \
    && chmod 777 /work

# The locked packages, each checked against its hash. They contain CUDA's user space, so that the
# host gives only the driver. TORCH=cpu takes torch's CPU build instead, from an index that has
# it: --build-arg PIP_EXTRA_INDEX_URL=… What neither needs is removed: the packages' own tests, and
# of the CPU build C++ headers and libraries for GPUs.
FROM system AS packages
ARG TORCH=cuda
ARG PIP_EXTRA_INDEX_URL
COPY requirements/install requirements/base.lock requirements/cpu.lock requirements/cuda.lock \
    /opt/requirements/
RUN PIP_NO_CACHE_DIR=1 PYTHON=python /opt/requirements/install /opt/venv runtime \
    && find /opt/venv -type d -name tests -prune -exec rm -r {} + \
    && if [ "$TORCH" = cpu ]; then rm -r /opt/venv/lib/python3.*/site-packages/torch/test \
        /opt/venv/lib/python3.*/site-packages/torch/include \
        /opt/venv/lib/python3.*/site-packages/bitsandbytes/libbitsandbytes_[!c]*.so \
        /opt/venv/lib/python3.*/site-packages/bitsandbytes/libbitsandbytes_cuda*.so; fi
COPY container/entrypoint /usr/local/bin/entrypoint
ENV LANG=C.UTF-8 \
    PATH=/opt/venv/bin:$PATH \
    VENV=/opt/venv \
    HF_HOME=/cache/huggingface \
    DVC_SITE_CACHE_DIR=/work/.dvc/tmp/site \
    DVC_NO_ANALYTICS=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1 \
    TORCH_CPP_LOG_LEVEL=ERROR \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /work
# -g: `docker stop` ends DVC and what it started, not DVC alone
ENTRYPOINT ["tini", "-g", "--", "entrypoint"]
CMD ["python", "-m", "replicate", "--help"]

# The project's own copy, for those who mount no clone. The clone's git settings, which may hold a
# password, stay outside (.dockerignore), and git makes new ones. Any user may write to the copy,
# and so to a volume that is filled from it.
FROM system AS project
COPY . /work
RUN git init -q /work && chmod -R a+rwX /work

# docker build --target test: with what the tests need
FROM packages AS test
COPY requirements/dev.lock /opt/requirements/
RUN PIP_NO_CACHE_DIR=1 PYTHON=python /opt/requirements/install /opt/venv
COPY --from=project --chown=1000:1000 /work /work
USER 1000:1000

FROM packages AS runtime
COPY --from=project --chown=1000:1000 /work /work
USER 1000:1000
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Does the LLC of a language model grow with its size?" \
      org.opencontainers.image.description="A replication: DVC pipeline, locked packages, LaTeX" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${REVISION}"
