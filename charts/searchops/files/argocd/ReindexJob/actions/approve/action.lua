-- Lets the tenant switch to the verified side: the word is the revision, or the job's own name where it has none.
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["searchops.dev/approve"] = obj.spec.revision or obj.metadata.name
return obj
