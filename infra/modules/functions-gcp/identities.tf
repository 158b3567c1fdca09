# Who builds, who delivers events, who keeps time: an identity each, none with a right to data.

locals {
  callers = var.trigger == null ? { on_timer = "timer" } : { on_object = "trigger", on_timer = "timer" }

  # All that is granted on the project. Google offers nothing narrower for the first three; the last is one bucket of
  # Google's own, in which it keeps the source of a build.
  project_roles = merge(
    { build_log = { role = "roles/logging.logWriter", member = google_service_account.this["build"].member, bucket = null } },
    var.trigger == null ? {} : {
      trigger_receive = { role = "roles/eventarc.eventReceiver", member = google_service_account.this["trigger"].member, bucket = null }
      storage_publish = { role = "roles/pubsub.publisher", member = data.google_storage_project_service_account.this.member, bucket = null }
    },
    { build_source = {
      role   = "roles/storage.objectViewer", member = google_service_account.this["build"].member
      bucket = "gcf-v2-sources-${data.google_project.this.number}-${var.region}"
    } },
  )
}

data "google_storage_project_service_account" "this" {
  project = var.project_id
}

resource "google_service_account" "this" {
  for_each     = toset(concat(["build"], values(local.callers)))
  project      = var.project_id
  account_id   = "${var.name}-${each.key}"
  display_name = "${var.name}: ${each.key}"
  depends_on   = [google_project_service.this]
}

resource "google_project_iam_member" "this" {
  for_each = local.project_roles
  project  = var.project_id
  role     = each.value.role
  member   = each.value.member
  dynamic "condition" {
    for_each = each.value.bucket[*]
    content {
      title      = "one bucket"
      expression = "resource.name == \"projects/_/buckets/${condition.value}\" || resource.name.startsWith(\"projects/_/buckets/${condition.value}/objects/\")"
    }
  }
}

resource "google_storage_bucket_iam_member" "build" {
  bucket = module.code.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.this["build"].member
}

resource "google_artifact_registry_repository_iam_member" "build" {
  project    = var.project_id
  location   = var.region
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.this["build"].member
}

resource "google_cloud_run_service_iam_member" "invoker" {
  for_each = local.callers
  project  = var.project_id
  location = var.region
  service  = google_cloudfunctions2_function.this[each.key].name
  role     = "roles/run.invoker"
  member   = google_service_account.this[each.value].member
}
