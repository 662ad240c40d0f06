# CPU:    docker build -t vision .
# NVIDIA: docker build -t vision:cuda --build-arg EXTRA=cuda .
# docs/install.md has the commands that run it.
FROM python:3.11-slim AS wheel
WORKDIR /source
COPY pyproject.toml setup.py requirements.txt README.md LICENSE ./
COPY vision vision
COPY configs configs
COPY papers papers
COPY zoo zoo
RUN pip wheel --no-deps --wheel-dir=/wheels .

FROM python:3.11-slim
ARG EXTRA=""
COPY requirements.lock /tmp/requirements.lock
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir -c /tmp/requirements.lock \
        "$(ls /wheels/*.whl)[serve,sweep${EXTRA:+,$EXTRA}]" \
    && rm -r /wheels /tmp/requirements.lock
# Not root: what it writes into a mounted folder belongs to user 1000, or to --user.
RUN useradd --create-home --uid 1000 vision
USER 1000
WORKDIR /work
EXPOSE 8009
CMD ["vision-train", "--help"]
