# The template in a container.
#
#   docker build -t jax-template .
#   docker run --rm -v "$PWD/saved:/project/saved" jax-template python train.py
#
# For NVIDIA GPUs:
#
#   docker build -t jax-template:cuda --build-arg REQUIREMENTS=requirements-cuda.txt .
#   docker run --rm --gpus all -v "$PWD/saved:/project/saved" jax-template:cuda python train.py
FROM python:3.13-slim

ARG REQUIREMENTS=requirements.txt
# The user who runs it owns what it writes: --build-arg USER_ID=$(id -u) for a mounted folder.
ARG USER_ID=1000

ENV PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

RUN useradd --create-home --uid "$USER_ID" trainer
WORKDIR /project

# The packages first: this layer is built again only when they change.
COPY requirements*.txt ./
RUN pip install -r "$REQUIREMENTS"

COPY --chown=trainer . .
RUN chown trainer /project
USER $USER_ID
CMD ["python", "train.py", "-c", "config.json"]
