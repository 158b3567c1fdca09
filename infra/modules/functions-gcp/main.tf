# One zip, two functions: on_object, woken by every new object of a bucket, and on_timer, called by a schedule. Neither
# can be called from outside, and nobody but its trigger may call it.

locals {
  services = [
    "artifactregistry", "cloudbuild", "cloudfunctions", "cloudresourcemanager", "cloudscheduler", "eventarc", "iam",
    "iamcredentials", "logging", "monitoring", "pubsub", "run", "storage", "sts",
  ]
  entry_points = var.trigger == null ? ["on_timer"] : ["on_object", "on_timer"]
  cpu          = coalesce(var.cpu, var.memory_gib <= 4 ? 1 : var.memory_gib / 4) # Cloud Run: a vCPU for 4 GiB at least
}

resource "google_project_service" "this" {
  for_each           = toset(local.services)
  project            = var.project_id
  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false # others in the project may use it
}

data "google_project" "this" {
  project_id = var.project_id
}

module "code" {
  source        = "../bucket-gcp"
  project_id    = var.project_id
  name          = "${var.project_id}-${var.name}-code"
  location      = var.region
  allow_destroy = true # packages can be made again, to the byte
  labels        = var.labels
}

resource "google_storage_bucket_object" "package" {
  bucket = module.code.name
  name   = "${trimsuffix(basename(var.package), ".zip")}-${filesha256(var.package)}.zip"
  source = var.package
}

resource "google_artifact_registry_repository" "images" {
  # checkov:skip=CKV_GCP_84: it holds public code and no data; the buckets take a customer's key
  project       = var.project_id
  location      = var.region
  repository_id = var.name
  description   = "Images that Cloud Build makes of the functions"
  format        = "DOCKER"
  labels        = var.labels
  depends_on    = [google_project_service.this]
}

resource "google_cloudfunctions2_function" "this" {
  for_each    = toset(local.entry_points)
  project     = var.project_id
  location    = var.region
  name        = "${var.name}-${replace(each.key, "_", "-")}"
  description = each.key == "on_object" ? "Woken by new objects" : "Makes what is missing"
  labels      = var.labels

  build_config {
    runtime               = "python312"
    entry_point           = each.key
    docker_repository     = google_artifact_registry_repository.images.id
    environment_variables = var.build_environment
    service_account       = "projects/${var.project_id}/serviceAccounts/${google_service_account.this["build"].email}"
    source {
      storage_source {
        bucket = module.code.name
        object = google_storage_bucket_object.package.name
      }
    }
  }

  service_config {
    service_account_email            = var.service_account
    ingress_settings                 = "ALLOW_INTERNAL_ONLY"
    available_memory                 = "${var.memory_gib}Gi"
    available_cpu                    = tostring(local.cpu)
    timeout_seconds                  = var.time_limit_seconds
    max_instance_count               = each.key == "on_object" ? var.max_instances : 1
    max_instance_request_concurrency = 1 # memory is planned for one call
    all_traffic_on_latest_revision   = true
    environment_variables            = var.environment
  }

  dynamic "event_trigger" {
    for_each = each.key == "on_object" ? [var.trigger] : []
    content {
      event_type            = "google.cloud.storage.object.v1.finalized"
      trigger_region        = lower(event_trigger.value.location)
      retry_policy          = "RETRY_POLICY_RETRY"
      service_account_email = google_service_account.this["trigger"].email
      event_filters {
        attribute = "bucket"
        value     = event_trigger.value.bucket
      }
    }
  }

  depends_on = [
    google_project_service.this,
    google_project_iam_member.this,
    google_artifact_registry_repository_iam_member.build,
    google_storage_bucket_iam_member.build,
  ]
}

resource "google_cloud_scheduler_job" "timer" {
  project          = var.project_id
  region           = var.region
  name             = "${var.name}-timer"
  description      = "Makes what is missing"
  schedule         = var.schedule
  time_zone        = "Etc/UTC"
  attempt_deadline = "${var.time_limit_seconds}s"

  http_target {
    http_method = "POST"
    uri         = google_cloudfunctions2_function.this["on_timer"].service_config[0].uri
    oidc_token {
      service_account_email = google_service_account.this["timer"].email
      audience              = google_cloudfunctions2_function.this["on_timer"].service_config[0].uri
    }
  }

  depends_on = [google_cloud_run_service_iam_member.invoker]
}
