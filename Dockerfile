# The agent as a container image. Stages run on the target's architecture, so the launcher is one for it.
#
#     buildah bud --tag sriovdp .          (or podman build, docker build)
#
# One process, Python without a shell in between; the root file system may be read-only.
ARG BASE=docker.io/library/debian:trixie-slim

FROM ${BASE} AS launcher
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev musl-tools
COPY cni/launcher /source
RUN musl-gcc -static -Os -s -Wall -Wextra -Werror -o /sriov /source/sriov.c

FROM ${BASE} AS package
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
RUN python3 -m venv /build
COPY requirements.lock /source/
# everything that is locked, with its hash checked; what follows takes from there only
RUN /build/bin/pip download --require-hashes --requirement /source/requirements.lock --dest /wheels
RUN /build/bin/pip install --no-index --find-links /wheels hatchling
COPY pyproject.toml README.md LICENSE /source/
COPY sriovdp /source/sriovdp
COPY cni /source/cni
COPY setup/wheel.py /source/setup/wheel.py
COPY --from=launcher /sriov /source/build/sriov
RUN /build/bin/pip wheel --no-index --find-links /wheels --no-build-isolation --no-deps --wheel-dir /wheels /source \
    && python3 -m venv --without-pip /opt/sriovdp \
    && /build/bin/pip --python /opt/sriovdp/bin/python install --no-index --find-links /wheels sriovdp

FROM ${BASE}
LABEL org.opencontainers.image.title="sriovdp" \
    org.opencontainers.image.description="SR-IOV and DPDK device manager for Kubernetes nodes" \
    org.opencontainers.image.licenses="Apache-2.0"
# kmod: drivers are modules of the host, whose /lib/modules is mounted; libudev1: the kernel's uevents
RUN apt-get update \
    && apt-get install --yes --no-install-recommends kmod libudev1 python3 \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/log/*.log /var/log/apt
COPY --from=package /opt/sriovdp /opt/sriovdp
ENV PATH=/opt/sriovdp/bin:/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["/opt/sriovdp/bin/sriovdp"]
CMD ["agent"]
