-- Holds the rollout where it is.
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["searchops.dev/pause"] = "true"
return obj
