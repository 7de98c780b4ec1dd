-- Which actions a person may take on an EmbeddingModel. Each sets an annotation, never spec and never status.
local status = obj.status or {}
local annotations = obj.metadata.annotations or {}
local held = annotations["searchops.dev/pause"] ~= nil
local awaiting, refused = false, false
for _, condition in ipairs(status.conditions or {}) do
  if condition.status == "False" and condition.reason == "AwaitingApproval" then
    awaiting = true
  end
  if condition.type == "Ready" and condition.status == "False" then
    refused = refused or status.candidate == nil or status.phase == "Paused"
  end
end

return {
  approve = { disabled = not (awaiting and status.candidate ~= nil), iconClass = "fa fa-fw fa-check" },
  retry = { disabled = not refused, iconClass = "fa fa-fw fa-redo" },
  pause = { disabled = held, iconClass = "fa fa-fw fa-pause" },
  resume = { disabled = not held, iconClass = "fa fa-fw fa-play" },
  rollback = { disabled = status.candidate == nil and status.active == nil, iconClass = "fa fa-fw fa-undo" },
}
