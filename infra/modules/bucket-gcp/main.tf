# A bucket in which every object is written once: nothing public, no per-object rights, nothing lost by a deletion.

resource "google_storage_bucket" "this" {
  # checkov:skip=CKV_GCP_62: who read and wrote what is told by Cloud Audit Logs, where the organisation turns them on
  project                     = var.project_id
  name                        = var.name
  location                    = var.location
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = var.allow_destroy
  labels                      = var.labels

  versioning {
    enabled = var.retention == null # one or the other on a bucket; under a retention nothing can be replaced anyway
  }
  soft_delete_policy {
    retention_duration_seconds = var.soft_delete_days * 86400
  }
  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }
  dynamic "retention_policy" {
    for_each = var.retention[*]
    content {
      retention_period = retention_policy.value.days * 86400
      is_locked        = retention_policy.value.locked
    }
  }
  dynamic "lifecycle_rule" {
    for_each = length(var.expiring) > 0 ? [var.expiring] : []
    content {
      action {
        type = "Delete"
      }
      condition {
        age            = 30
        matches_prefix = lifecycle_rule.value
        with_state     = "ANY" # first the object, and then the version that this leaves
      }
    }
  }
}
