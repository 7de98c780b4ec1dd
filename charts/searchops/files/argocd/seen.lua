-- Put before each kind's health.lua by the chart: Argo CD gives a script no way to load another, and neither the string nor
-- the math library. An object whose status speaks of an earlier generation is waited for.
local function health(status, message)
  return { status = status, message = message }
end

local status = obj.status or {}
local seen = status.observedGeneration or 0
if seen ~= (obj.metadata.generation or seen) or status.conditions == nil then
  return health("Progressing", "waiting for the operator: it has acted on generation " .. seen)
end
