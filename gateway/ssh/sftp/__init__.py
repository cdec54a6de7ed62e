"""SFTP, spoken by the gateway: what a file subsystem's lane does with its bytes.

`packets` takes streams apart and puts packets together, `operations` says what each request asks and `replies` what may
answer it, `handles` and `ledger` keep what is open and what happened, `judge` asks policy, `conversation` is one
channel's.  Version 3 (draft-ietf-secsh-filexfer-02), which is what everybody speaks, and OpenSSH's extensions of it
(OpenSSH's PROTOCOL, section 4).
"""
