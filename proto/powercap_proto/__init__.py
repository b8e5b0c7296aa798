"""The wire contract: the frozen prototype, powercap.planner.v1, and the client of both.

Here belong the .proto files, their committed stubs and the Planner client. Nothing else.
"""
