"""A double of the Qdrant server: REST and gRPC over `qdrant-edge-py`, the real segment engine.

It is labelled as a double wherever it names itself, answers from the engine or refuses with 501, and never
says yes to something that it ignores. `cell.QdrantCell` starts one as a process of its own.
"""
