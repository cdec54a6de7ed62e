# The gateway with its agent, policies and SQL.  Build from the top of the checkout:
#   docker build -f backends/docker/gateway.Dockerfile -t doorward-gateway .
ARG GO=golang:1.26-bookworm
ARG PYTHON=python:3.11-slim-bookworm

FROM ${GO} AS agent
WORKDIR /src
COPY backends/agent/ ./
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /doorward-agent .

FROM ${PYTHON}
COPY requirements/run.txt /tmp/run.txt
RUN python3 -m pip install --no-cache-dir --require-hashes -r /tmp/run.txt && rm /tmp/run.txt
COPY gateway /opt/doorward/gateway
COPY policies /opt/doorward/policies
COPY secrets /opt/doorward/secrets
COPY backends/docker/seccomp.json /opt/doorward/backends/docker/seccomp.json
COPY --from=agent /doorward-agent /tmp/doorward-agent
RUN mkdir -p /opt/doorward/gateway/_assets/agent /var/lib/doorward \
    && mv /tmp/doorward-agent "/opt/doorward/gateway/_assets/agent/doorward-agent-linux-$(dpkg --print-architecture)" \
    && chown 65532:65532 /var/lib/doorward
ENV PYTHONPATH=/opt/doorward PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 2222 8282
ENTRYPOINT ["python3", "-m", "gateway"]
CMD ["serve", "--config", "/etc/doorward/doorward.toml"]
