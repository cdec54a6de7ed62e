"""What policy would say: real policies and real data in an OPA of our own, asked as often as a study needs.

Nothing here decides, and nothing here is asked by the gateway.  The commands of `doorward policy` are thin; what they
tell is found here, one module for each theme, always by having OPA evaluate, never by reading the data ourselves.
"""
