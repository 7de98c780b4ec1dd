"""One controller per kind: gather facts through ports, plan purely, apply in order, write the status once."""
