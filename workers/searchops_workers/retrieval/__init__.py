"""Retrieval: one library used by the gateway, the gate and the re-embedding worker alike.

It knows nothing of its users: analyser, sparse vectors, routing, one hybrid request, ties broken by id.
"""
