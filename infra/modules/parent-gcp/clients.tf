# What a client may do in the parent bucket: read public/, create and read under updates/<itself>/. Roles on managed
# folders, since listing has no object to hold a condition to; creating has one, and a condition on top.

locals {
  members = { for id, each in var.clients : id => each.gcp != null ? "serviceAccount:${each.gcp.service_account}" :
    module.trust[each.azure.tenant].members[each.azure.principal]
  }
  tenants = { for id, each in var.clients : each.azure.tenant => each.azure... if each.azure != null }
  taking_part = merge([for id, each in var.clients : {
    for federation in each.federations : "${federation}/${id}" => { client = id, federation = federation }
  }]...)
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

module "client_contract" {
  source      = "../contract"
  for_each    = var.clients
  client      = each.key
  federations = each.value.federations
  bucket      = local.bucket
}

resource "google_storage_managed_folder" "public" {
  for_each      = local.federations
  bucket        = module.bucket.name
  name          = module.contract.folders.public[each.key]
  force_destroy = true # a folder is its rights: objects stay
}

resource "google_storage_managed_folder" "updates" {
  for_each      = local.taking_part
  bucket        = module.bucket.name
  name          = module.client_contract[each.value.client].folders.updates[each.value.federation]
  force_destroy = true
}

resource "google_storage_managed_folder_iam_member" "public" {
  for_each       = local.taking_part
  bucket         = module.bucket.name
  managed_folder = google_storage_managed_folder.public[each.value.federation].name
  role           = "roles/storage.objectViewer"
  member         = local.members[each.value.client]
}

resource "google_storage_managed_folder_iam_member" "read_updates" {
  for_each       = local.taking_part
  bucket         = module.bucket.name
  managed_folder = google_storage_managed_folder.updates[each.key].name
  role           = "roles/storage.objectViewer"
  member         = local.members[each.value.client]
}

resource "google_storage_managed_folder_iam_member" "create_updates" {
  for_each       = local.taking_part
  bucket         = module.bucket.name
  managed_folder = google_storage_managed_folder.updates[each.key].name
  role           = "roles/storage.objectCreator"
  member         = local.members[each.value.client]
  condition {
    title      = "updates and withdrawals"
    expression = module.client_contract[each.value.client].gcs_create_conditions.updates[each.value.federation]
  }
}
