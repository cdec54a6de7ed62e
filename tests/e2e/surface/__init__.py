"""Every behaviour that a stock client must find, row by row, on every backend (docs/ssh.md, "Behaviours")."""
