# One image for gateway, worker and migrations; docker-compose.yml says which it is.
# Written for any builder: nothing here needs BuildKit.
#
# pip reads PIP_* from the environment: give a mirror, or an index of wheels without CUDA, as
#   docker build --build-arg PIP_INDEX_URL=… --build-arg PIP_EXTRA_INDEX_URL=… --tag shotline:VERSION .
FROM python:3.11-slim

ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

# PyTorch alone is most of the image. It changes with constraints.txt and with nothing else.
WORKDIR /build
COPY constraints.txt ./
RUN pip install --constraint constraints.txt torch torchvision

# What pyproject.toml names, so that a change of our code installs only our code.
COPY pyproject.toml ./
RUN python -c "import tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = project['optional-dependencies']; \
print(*project['dependencies'], *extras['onnx'], *extras['openvino'], *extras['parquet'], *extras['postgres'], sep='\n')" \
        > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt hatchling

COPY README.md LICENSE docker-compose.yml .env.example ./
COPY deploy/Caddyfile deploy/make-secrets deploy/install.sh ./deploy/
COPY docs/deploy.md docs/airgap.md docs/operations.md docs/security.md ./docs/
COPY models ./models
COPY app ./app
COPY worker ./worker
RUN pip install --no-deps --no-build-isolation . \
    && rm -rf /build/* /build/.env.example

# The named volume takes over this folder's owner when it is first made.
RUN groupadd --gid 10001 shotline \
    && useradd --uid 10001 --gid shotline --home-dir /var/lib/shotline --create-home \
        --shell /usr/sbin/nologin shotline

# The root may be read-only: what libraries keep in a home folder goes to /tmp.
ENV SHOTLINE_HOME=/var/lib/shotline \
    SHOTLINE_HOST=0.0.0.0 \
    XDG_CACHE_HOME=/tmp/cache \
    HF_HOME=/backbones/huggingface
WORKDIR /var/lib/shotline
USER shotline
EXPOSE 8000
CMD ["shotline", "serve"]
