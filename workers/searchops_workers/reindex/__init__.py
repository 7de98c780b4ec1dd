"""Re-embedding: read a slice, encode, write; resumable without a ledger, never overwriting what is newer."""
