"""The sandbox: the platform's real parts as plain processes on loopback."""
