# For machines without a GPU: PyTorch's CPU build. In a clone of the repository:
#   docker build -f docs/docker/cpu.Dockerfile -t tune-cropshield:cpu .
# and in the folder that holds leaves/ (results go to results/ there):
#   docker run --rm -it --init --shm-size 2g --user "$(id -u):$(id -g)" -v "$PWD:/work" tune-cropshield:cpu search --data leaves
FROM python:3.12-slim

WORKDIR /opt/tune_cropshield
RUN pip install --no-cache-dir uv
COPY pyproject.toml README.md ./
COPY search_spaces search_spaces
COPY tune_cropshield tune_cropshield
RUN uv pip install --system --no-cache --torch-backend cpu .

# The user's own folder, which keeps the decoded photographs (.cache) and the results beyond the container.
WORKDIR /work
ENV HOME=/work LOGNAME=tune
ENTRYPOINT ["tune-cropshield"]
