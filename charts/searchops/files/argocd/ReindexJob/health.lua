-- What Argo CD is told of a ReindexJob: Healthy once its tenant was seen on the new side, Degraded where it ended without.
if status.phase == nil then
  return health("Progressing", "waiting for the operator to say how far the job is")
end

local refused = {
  InvalidSpec = true, NotSupported = true, PodTemplateNotAllowed = true, PodTemplateNotFound = true,
  SourceNotAllowed = true, TenantNotFound = true,
}
local said, suspended, wrong = status.phase, nil, nil
for _, condition in ipairs(status.conditions) do
  if condition.status == "False" then
    local line = condition.reason .. ": " .. (condition.message or "")
    if condition.type == "Ready" then
      said = line
    end
    if condition.reason == "AwaitingApproval" or condition.reason == "Suspended" then
      suspended = line
    end
    if refused[condition.reason] then
      wrong = line
    end
  end
end
if status.phase == "Switched" then
  return health("Healthy", "the tenant was seen on the new side")
end
if status.phase == "Failed" or status.phase == "Cancelled" or wrong ~= nil then
  return health("Degraded", wrong or said)
end
if suspended ~= nil then
  return health("Suspended", suspended)
end
return health("Progressing", said)
