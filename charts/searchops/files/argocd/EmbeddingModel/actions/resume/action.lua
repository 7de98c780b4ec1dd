-- Takes back what the action pause did; a pause that the commit asks for (spec.paused) is lifted by a commit.
if obj.metadata.annotations ~= nil then
  obj.metadata.annotations["searchops.dev/pause"] = nil
end
return obj
