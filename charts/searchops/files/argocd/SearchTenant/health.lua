-- What Argo CD is told of a SearchTenant. Reasons: docs/conditions.md. A reason that is not listed is Progressing: a cell
-- that is silent or full is waited for, and its tenants go on by themselves.
local degraded = {
  AdoptionRefused = true, CellIdentityMismatch = true, CellKeyTooWeak = true, CellMissing = true, CellTooOld = true,
  CollectionLost = true, Conflict = true, InvalidSpec = true, IsolationBroken = true, ModelNotFound = true,
  NoCapacity = true, NoMatchingCell = true, NotSupported = true, PinnedQueriesInvalid = true,
  PinnedQueriesLost = true, PinnedQueriesUndecided = true, RebuildFailed = true, SearchFailed = true,
  SecretConflict = true,
}

local ready = nil
for _, condition in ipairs(status.conditions) do
  if condition.type == "Ready" then
    ready = condition
  end
end
if ready == nil then
  return health("Progressing", "waiting for the operator to say whether the tenant is ready")
end
if ready.status == "False" and degraded[ready.reason] then
  return health("Degraded", ready.reason .. ": " .. (ready.message or ""))
end
if ready.reason == "Paused" or (obj.spec or {}).paused then
  return health("Suspended", "spec.paused is true: " .. (ready.message or ""))
end
if ready.status == "True" then
  return health("Healthy", ready.message)
end
return health("Progressing", (ready.reason or "") .. ": " .. (ready.message or ""))
