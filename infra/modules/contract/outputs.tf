output "folders" {
  description = "The prefix of every right, by kind and federation: `public`, `inbox`, `updates` (of the client); and of what expires: `checkpoints`."
  value       = { public = local.public, inbox = local.inbox, updates = local.updates, checkpoints = local.checkpoints }
}

output "gcs_create_conditions" {
  description = "IAM conditions for a role that creates objects, by kind (`inbox`, `updates`) and federation."
  value       = local.gcs_create
}

output "abac_conditions" {
  description = "ABAC conditions for one role assignment on a container that reads, lists and creates: `inbox` for the parent in a client's, `updates` for the client in the parent's."
  value       = local.abac
}

output "actions" {
  description = "Data actions of the Azure roles: `read`, and `create`, which reads too."
  value = {
    read   = ["${local.blobs}/read"]
    create = concat(["${local.blobs}/read", "${local.blobs}/add/action"], var.staged_blocks ? ["${local.blobs}/write"] : [])
  }
}

output "event_filters" {
  description = "Event Grid filters on the subject that pass what wakes a function: `parent` in the parent's container, `client` in a client's."
  value = {
    parent = { begins_with = local.subject, ends_with = "", contains = ["/public/models/", "/updates/", "/receipts/"] }
    client = { begins_with = local.subject, ends_with = ".json", contains = ["/inbox/"] }
  }
}

output "log_patterns" {
  description = "Regular expressions (RE2) for what functions log that somebody should hear of: `rejected` and `late` the parent's, `left_out`, `budget` and `refused` a client's."
  value = {
    rejected = ": rejected, [a-z-]+: "
    late     = ": round [0-9]+ is past its deadline"
    left_out = ": round [0-9]+ ended for [a-z0-9-]+: "
    budget   = "BudgetExceeded: "
    refused  = "ConsentRefused: "
  }
}

output "identities_toml" {
  description = "The `[[identity]]` tables, as the functions' settings have them; empty where there are none."
  value = join("\n", [for each in var.identities : join("\n", concat(
    ["[[identity]]"],
    [for name, value in each : "${name} = ${jsonencode(value)}" if value != null],
    [""],
  ))])
}
