# One image for web, worker, beat and Flower; docker-compose.yml says which command each runs.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 DATA_DIR=/var/lib/scribes
RUN useradd --system --create-home scribes && install -d -o scribes -g scribes /var/lib/scribes
WORKDIR /srv/scribes
COPY requirements.txt constraints.txt ./
# The CPU build of PyTorch: the one on PyPI brings several gigabytes of CUDA libraries.
RUN pip install -c constraints.txt -r requirements.txt --extra-index-url https://download.pytorch.org/whl/cpu
COPY . .
USER scribes
VOLUME /var/lib/scribes
CMD ["gunicorn", "-c", "python:scribes.serving.config", "scribes.asgi", "--bind", "0.0.0.0:8000"]
