-- What Argo CD is told of an EmbeddingModel. Reasons: docs/conditions.md. A reason that is not listed is Progressing.
-- Argo CD gives a script neither the string nor the math library.
local degraded = {
  AccuracyFailed = true, BadCheckpoint = true, BreakerOpen = true, BuildFailed = true, DigestMismatch = true,
  GateInvalid = true, InvalidSpec = true, LoadFailed = true, PodTemplateNotAllowed = true, PodTemplateNotFound = true,
  PoolNotFound = true, Regressed = true, Rejected = true, RolledBack = true, SourceNotAllowed = true,
  StateUnknown = true, VerifyFailed = true,
}
local suspended = { AwaitingApproval = true, DryRun = true, Inconclusive = true, Paused = true }

local function health(status, message)
  return { status = status, message = message }
end

local status = obj.status or {}
local seen = status.observedGeneration or 0
if seen ~= (obj.metadata.generation or seen) or status.conditions == nil then
  return health("Progressing", "waiting for the operator: it has acted on generation " .. seen)
end

local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
local ready = found.Ready
if ready == nil then
  return health("Progressing", "waiting for the operator to say whether the model is ready")
end
if ready.status == "True" then
  local tenants = status.tenants or {}
  local wanted = (tenants.total or 0) - (tenants.held or 0)
  local bound = tenants.bound or 0
  if bound < wanted then
    return health("Progressing", bound .. " of " .. wanted .. " tenants are bound: " .. (ready.message or ""))
  end
  return health("Healthy", ready.message)
end

-- Ready and Progressing speak of the rollout as a whole; what they leave open, a stage's own condition says.
local order = { ready }
if found.Progressing ~= nil then
  table.insert(order, found.Progressing)
end
for _, condition in ipairs(status.conditions) do
  table.insert(order, condition)
end
for _, class in ipairs({ { "Degraded", degraded }, { "Suspended", suspended } }) do
  for _, condition in ipairs(order) do
    if condition.status == "False" and class[2][condition.reason] then
      return health(class[1], condition.reason .. ": " .. (condition.message or ""))
    end
  end
end
local going = found.Progressing or ready
return health("Progressing", (going.reason or "") .. ": " .. (going.message or ""))
