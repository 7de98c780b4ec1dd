-- Takes the candidate back, or the active revision where there is none. The word names the revision: it takes back no other.
local status = obj.status or {}
local back = status.candidate or status.active
if back == nil then
  error("there is no revision to take back")
end
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["searchops.dev/rollback"] = back.revision
return obj
