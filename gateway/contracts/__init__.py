"""What every backend, issuer and verifier must do, as pytest classes to inherit: for ours, and for yours.

    from gateway.contracts.backend import IsolationContract, StreamContract

    class TestMine(StreamContract, IsolationContract): ...

Each module says which fixtures its classes ask for.  pytest, pytest-asyncio and, for
`gateway.contracts.postgres`, asyncpg must be there:
`pip install doorward[contracts]`.  Nothing else of Doorward imports this package.
"""

import pytest

pytest.register_assert_rewrite("gateway.contracts.backend", "gateway.contracts.issuer", "gateway.contracts.verifier")
