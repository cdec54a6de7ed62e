# The agent and nothing else.  Build it first (README.md beside this file).
FROM scratch
COPY --chmod=0755 doorward-agent /doorward-agent
USER 65532:65532
ENTRYPOINT ["/doorward-agent"]
