# hsa2c in a container, installed by the two lines of README.md:
#     docker build -t hsa2c .
#     docker run --rm -it --shm-size=1g -v hsa2c-runs:/home/hsa2c/runs hsa2c train --game Pong
# Open MPI comes with the packages; ssh, for runs of several hosts, does not.
FROM python:3.11-slim

# Where an index has builds of torch for processors alone, the image is gigabytes smaller:
#     docker build -t hsa2c --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu .
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN pip install torch==2.13.0

COPY . /src
RUN pip install -c /src/constraints.txt '/src[lda,plan]' && rm -r /src

RUN useradd --create-home hsa2c && install -d -o hsa2c -g hsa2c /home/hsa2c/runs
USER hsa2c
WORKDIR /home/hsa2c
VOLUME /home/hsa2c/runs
ENTRYPOINT ["hsa2c"]
CMD ["--help"]
