"""The real parts, on this machine: OPA, Vault, PostgreSQL, a Docker engine, a trace collector, and images.

Each part is a context manager over a directory (`with opa(directory) as part:`) and ends with it.  For people,
`python -m tests.stack up` keeps them all running (`make stack`).  Only `require.py` imports pytest.
"""

IN_THE_CLEAR = False
"""What httpx is to `verify` where no TLS is spoken: it reads the machine's authorities else, 20 ms for every client."""


class StackError(Exception):
    """A part could not be brought up; the message says which one, why, and what would help."""
