"""The gateway: HTTP, text in. Stateless; it holds no credential of its own and reads nothing the caller cannot."""
