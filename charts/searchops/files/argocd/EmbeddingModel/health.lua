-- What Argo CD is told of an EmbeddingModel. Reasons: docs/conditions.md. A reason that is not listed is Progressing.
local degraded = {
  AccuracyFailed = true, BadCheckpoint = true, BreakerOpen = true, BuildFailed = true, DigestMismatch = true,
  GateInvalid = true, InvalidSpec = true, LoadFailed = true, PodTemplateNotAllowed = true, PodTemplateNotFound = true,
  PoolNotFound = true, Regressed = true, Rejected = true, RolledBack = true, SignalDegraded = true,
  SourceNotAllowed = true, StateUnknown = true, VerifyFailed = true,
}
-- Of a stage's own condition: the operator tries again by itself for as long as Progressing does not say that it gave up.
local retried = { BuildFailed = true, GateInvalid = true, LoadFailed = true, VerifyFailed = true }
local suspended = { AwaitingApproval = true, DryRun = true, Inconclusive = true, Paused = true }

local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
local ready = found.Ready
if ready == nil then
  return health("Progressing", "waiting for the operator to say whether the model is ready")
end
local servers = found.ServersInSync
if servers ~= nil and servers.status == "False" and servers.reason == "PoolNotFound" then
  return health("Degraded", "PoolNotFound: " .. (servers.message or ""))
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
local going = found.Progressing == nil or found.Progressing.status ~= "False"
local order = { ready }
if found.Progressing ~= nil then
  table.insert(order, found.Progressing)
end
for _, condition in ipairs(status.conditions) do
  table.insert(order, condition)
end
for _, class in ipairs({ { "Degraded", degraded }, { "Suspended", suspended } }) do
  for _, condition in ipairs(order) do
    local whole = condition.type == "Ready" or condition.type == "Progressing"
    local again = going and not whole and retried[condition.reason]
    if condition.status == "False" and class[2][condition.reason] and not again then
      return health(class[1], condition.reason .. ": " .. (condition.message or ""))
    end
  end
end
local last = found.Progressing or ready
return health("Progressing", (last.reason or "") .. ": " .. (last.message or ""))
