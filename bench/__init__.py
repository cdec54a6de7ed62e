"""Doorward measured beside OpenSSH and bare asyncssh, in one run on one machine.  See docs/benchmarks.md."""
