"""Backups of tenants: snapshots into the artifact store, their restore, and the proof that it works."""
