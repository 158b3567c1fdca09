# A client in GCP: private state, where nobody else has a right; if it likes, an inbox; and the functions that train.

locals {
  federations = toset(flatten([for each in var.parents : tolist(each.federations)]))
  prefix      = "${var.project_id}-${var.name}"
  alerts = {
    budget   = { title = "a privacy budget is spent", action = "The client withdraws from rounds that its budget cannot bear: `fedbucket privacy ledger` shows the account. Granting more is a decision on the data, not a repair." }
    refused  = { title = "a federation is outside what was agreed", action = "Nothing was created. The log names what differs; agree to it in client.toml, or leave the federation." }
    left_out = { title = "an update was not averaged", action = "The ticket says how the client's last round ended: rejected (with a code), absent, withdrawn or void." }
  }
}

module "contract" {
  source      = "../contract"
  federations = local.federations
  bucket      = "${local.prefix}-inbox"
  identities = [for each in var.parents : {
    trust  = "gcp-to-azure"
    bucket = each.bucket
    tenant = each.access.tenant
    client = each.access.client
  } if each.azure != null && each.access != null]
}

module "inbox" {
  source           = "../bucket-gcp"
  count            = var.inbox ? 1 : 0
  project_id       = var.project_id
  name             = "${local.prefix}-inbox"
  location         = var.region
  kms_key          = var.kms_key
  soft_delete_days = var.soft_delete_days
  allow_destroy    = true # the parent can write tickets again
  labels           = var.labels
}

module "state" {
  source           = "../bucket-gcp"
  project_id       = var.project_id
  name             = "${local.prefix}-state"
  location         = var.region
  kms_key          = var.kms_key
  retention        = var.retention
  expiring         = values(module.contract.folders.checkpoints) # weights without noise
  soft_delete_days = var.soft_delete_days
  allow_destroy    = var.allow_destroy
  labels           = var.labels
}

# on_object and on_timer are one identity: the sweep does whatever the handler does, so their rights are the same.
resource "google_service_account" "this" {
  project      = var.project_id
  account_id   = "${var.name}-run"
  display_name = "${var.name}: the functions"
}

locals {
  own_rights = merge(
    {
      state_create = { bucket = module.state.name, role = "roles/storage.objectCreator" }
      state_read   = { bucket = module.state.name, role = "roles/storage.objectViewer" }
    },
    var.inbox ? { inbox_read = { bucket = module.inbox[0].name, role = "roles/storage.objectViewer" } } : {},
    var.data_bucket == null ? {} : { data_read = { bucket = var.data_bucket, role = "roles/storage.objectViewer" } },
  )
}

resource "google_storage_bucket_iam_member" "own" {
  for_each = local.own_rights
  bucket   = each.value.bucket
  role     = each.value.role
  member   = google_service_account.this.member
}

module "functions" {
  source             = "../functions-gcp"
  project_id         = var.project_id
  region             = var.region
  name               = var.name
  package            = var.package
  service_account    = google_service_account.this.email
  trigger            = var.inbox ? { bucket = module.inbox[0].name, location = var.region } : null
  schedule           = var.schedule
  memory_gib         = var.memory_gib
  cpu                = var.cpu
  time_limit_seconds = var.time_limit_seconds
  max_instances      = coalesce(var.max_instances, 1 + length(local.federations)) # a redelivered ticket need not wait
  alerts             = { for name, each in local.alerts : name => merge(each, { pattern = module.contract.log_patterns[name] }) }
  alert_emails       = var.alert_emails
  labels             = var.labels
  # Of equal versions pip takes the one without CUDA.
  build_environment = var.torch_index == null ? {} : { PIP_EXTRA_INDEX_URL = var.torch_index }
  environment = {
    FEDBUCKET_CLIENT = join("\n", concat(
      ["state = ${jsonencode(module.state.url)}", "time_limit = \"${var.time_limit_seconds}s\""],
      [for each in module.inbox : "inbox = ${jsonencode(each.url)}"],
      [var.client_toml, module.contract.identities_toml],
    ))
  }
}
