"""The demo: files go in, tenants are searchable, a better model rolls out, a worse one is taken back."""
