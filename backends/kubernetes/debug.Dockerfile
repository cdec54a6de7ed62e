# The debug image of containers beside running services: nothing can be brought into them at run time, so the agent is in
# the image.  It is made of the debug image (backends/docker/Dockerfile, or one of yours) and the agent's, by digest:
#   docker build -t registry.example/doorward-beside -f backends/kubernetes/debug.Dockerfile \
#     --build-arg DEBUG=registry.example/doorward-debug@sha256:... \
#     --build-arg AGENT=registry.example/doorward-agent@sha256:... backends/kubernetes
ARG AGENT
ARG DEBUG
FROM ${AGENT} AS agent
FROM ${DEBUG}
COPY --from=agent --chmod=0755 /doorward-agent /.doorward/doorward-agent
USER 65532:65532
