# For NVIDIA GPUs: PyTorch's own build brings CUDA along, the host brings the driver and the NVIDIA Container Toolkit.
# In a clone of the repository:
#   docker build -f docs/docker/cuda.Dockerfile -t tune-cropshield:cuda .
# and in the folder that holds leaves/ (results go to results/ there):
#   docker run --rm -it --init --gpus all --shm-size 8g --user "$(id -u):$(id -g)" -v "$PWD:/work" tune-cropshield:cuda search --data leaves
FROM python:3.12-slim

WORKDIR /opt/tune_cropshield
RUN pip install --no-cache-dir uv
COPY pyproject.toml README.md ./
COPY search_spaces search_spaces
COPY tune_cropshield tune_cropshield
RUN uv pip install --system --no-cache .

# The user's own folder, which keeps the decoded photographs (.cache) and the results beyond the container.
WORKDIR /work
ENV HOME=/work LOGNAME=tune
ENTRYPOINT ["tune-cropshield"]
