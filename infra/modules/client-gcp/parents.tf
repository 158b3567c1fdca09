# What a parent may do here: create and read under inbox/, of its own federations. In private state and data it has no
# binding at all.

locals {
  members = { for name, each in var.parents : name => each.gcp != null ? "serviceAccount:${each.gcp.service_account}" :
    module.trust[each.azure.tenant].members[each.azure.principal] if var.inbox
  }
  tenants = { for name, each in var.parents : each.azure.tenant => each.azure... if each.azure != null && var.inbox }
  inboxes = merge([for name, each in var.parents : {
    for federation in each.federations : federation => name
  } if var.inbox]...)
}

module "trust" {
  source     = "../trust-azure-to-gcp"
  for_each   = local.tenants
  project_id = var.project_id
  pool_id    = "${var.name}-${substr(sha256(each.key), 0, 8)}"
  tenant     = each.key
  audiences  = toset([for azure in each.value : azure.audience])
  principals = toset([for azure in each.value : azure.principal])
}

resource "google_storage_managed_folder" "inbox" {
  for_each      = local.inboxes
  bucket        = module.inbox[0].name
  name          = module.contract.folders.inbox[each.key]
  force_destroy = true # a folder is its rights: objects stay
}

resource "google_storage_managed_folder_iam_member" "read_inbox" {
  for_each       = local.inboxes
  bucket         = module.inbox[0].name
  managed_folder = google_storage_managed_folder.inbox[each.key].name
  role           = "roles/storage.objectViewer"
  member         = local.members[each.value]
}

resource "google_storage_managed_folder_iam_member" "create_inbox" {
  for_each       = local.inboxes
  bucket         = module.inbox[0].name
  managed_folder = google_storage_managed_folder.inbox[each.key].name
  role           = "roles/storage.objectCreator"
  member         = local.members[each.value]
  condition {
    title      = "tickets"
    expression = module.contract.gcs_create_conditions.inbox[each.key]
  }
}
