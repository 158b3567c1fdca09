# The parent in GCP: its bucket, the functions that drive the loop, and every client's rights, one prefix each.

locals {
  federations = toset(flatten([for each in var.clients : tolist(each.federations)]))
  bucket      = "${var.project_id}-${var.name}"
  alerts = {
    rejected = { title = "an update was rejected", action = "A client's update was refused; the code and what was expected stand in the log and in rounds/<round>/receipts/<client>.json." }
    late     = { title = "a round is past its deadline", action = "Too few clients have answered: `fedbucket status` says who. At twice the deadline the round is void, and the run goes on." }
  }
}

module "contract" {
  source      = "../contract"
  federations = local.federations
  identities = [for each in var.clients : {
    trust  = "gcp-to-azure"
    bucket = each.inbox.bucket
    tenant = each.inbox.tenant
    client = each.inbox.client
  } if startswith(try(each.inbox.bucket, ""), "az://")]
}

module "bucket" {
  source           = "../bucket-gcp"
  project_id       = var.project_id
  name             = local.bucket
  location         = var.region
  kms_key          = var.kms_key
  retention        = var.retention
  soft_delete_days = var.soft_delete_days
  allow_destroy    = var.allow_destroy
  labels           = var.labels
}

# on_object and on_timer are one identity: the sweep does whatever the handlers do, so their rights are the same.
resource "google_service_account" "this" {
  project      = var.project_id
  account_id   = "${var.name}-run"
  display_name = "${var.name}: the functions"
}

# In its own bucket the parent creates and reads, and has no right to overwrite or delete.
resource "google_storage_bucket_iam_member" "parent" {
  for_each = toset(["roles/storage.objectCreator", "roles/storage.objectViewer"])
  bucket   = module.bucket.name
  role     = each.key
  member   = google_service_account.this.member
}

module "functions" {
  source             = "../functions-gcp"
  project_id         = var.project_id
  region             = var.region
  name               = var.name
  package            = var.package
  service_account    = google_service_account.this.email
  trigger            = { bucket = module.bucket.name, location = var.region }
  schedule           = var.schedule
  memory_gib         = var.memory_gib
  cpu                = var.cpu
  time_limit_seconds = var.time_limit_seconds
  max_instances      = coalesce(var.max_instances, min(100, max(4, 2 * length(var.clients)))) # an update and a receipt wake one each
  alerts             = { for name, each in local.alerts : name => merge(each, { pattern = module.contract.log_patterns[name] }) }
  alert_emails       = var.alert_emails
  labels             = var.labels
  environment = {
    FEDBUCKET_PARENT = <<-EOT
      bucket = ${jsonencode(module.bucket.url)}
      time_limit = "${var.time_limit_seconds}s"
      workers = ${module.functions.cpu}

      ${module.contract.identities_toml}
    EOT
  }
}
