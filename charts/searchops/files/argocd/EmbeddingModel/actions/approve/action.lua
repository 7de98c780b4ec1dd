-- Approves the wave that the candidate waits for. The word names its revision, and the wave where every wave is asked about,
-- so that it never carries over to another.
local status = obj.status or {}
if status.candidate == nil then
  error("there is no candidate to approve")
end
local rollout = obj.spec.rollout or {}
local word = status.candidate.revision
if rollout.approval == "BeforeEachWave" and status.wave ~= nil then
  local following, last = status.wave.index + 1, #(rollout.waves or {}) - 1
  if following > last then
    following = last
  end
  word = word .. "/" .. following
end
obj.metadata.annotations = obj.metadata.annotations or {}
obj.metadata.annotations["searchops.dev/approve"] = word
return obj
