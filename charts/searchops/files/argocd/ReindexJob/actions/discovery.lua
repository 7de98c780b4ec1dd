-- Which actions a person may take on a ReindexJob. Each sets an annotation.
local status = obj.status or {}
local awaiting = false
for _, condition in ipairs(status.conditions or {}) do
  if condition.status == "False" and condition.reason == "AwaitingApproval" then
    awaiting = true
  end
end

return {
  approve = { disabled = not awaiting, iconClass = "fa fa-fw fa-check" },
  retry = { disabled = status.phase ~= "Failed", iconClass = "fa fa-fw fa-redo" },
}
