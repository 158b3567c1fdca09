# What a person should hear of: what the log says (var.alerts), a handler that keeps failing, an event that is not taken.

locals {
  function_names = [for each in local.entry_points : "${var.name}-${replace(each, "_", "-")}"]
  of_functions   = "resource.labels.service_name=(${join(" OR ", [for each in local.function_names : "\"${each}\""])})"
  channels       = [for each in google_monitoring_notification_channel.email : each.name]
}

resource "google_monitoring_notification_channel" "email" {
  for_each     = var.alert_emails
  project      = var.project_id
  display_name = "${var.name}: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }
  depends_on   = [google_project_service.this]
}

resource "google_logging_metric" "this" {
  for_each = var.alerts
  project  = var.project_id
  name     = "${var.name}-${each.key}"
  filter = join(" AND ", [
    "resource.type=\"cloud_run_revision\"",
    local.of_functions,
    "(textPayload=~${jsonencode(each.value.pattern)} OR jsonPayload.message=~${jsonencode(each.value.pattern)})",
  ])
  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }
  depends_on = [google_project_service.this]
}

resource "google_monitoring_alert_policy" "said" {
  for_each              = var.alerts
  project               = var.project_id
  display_name          = "${var.name}: ${each.value.title}"
  combiner              = "OR"
  notification_channels = local.channels
  documentation {
    content = each.value.action
  }
  conditions {
    display_name = each.value.title
    condition_threshold {
      filter     = "resource.type=\"cloud_run_revision\" AND metric.type=\"logging.googleapis.com/user/${google_logging_metric.this[each.key].name}\""
      comparison = "COMPARISON_GT"
      duration   = "0s"
      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
}

resource "google_monitoring_alert_policy" "failing" {
  project               = var.project_id
  display_name          = "${var.name}: a handler keeps failing"
  combiner              = "OR"
  notification_channels = local.channels
  documentation {
    content = "More than three failed calls in an hour: single ones are retried and mean nothing. The error is in the log of ${join(" and ", local.function_names)}."
  }
  conditions {
    display_name = "a handler keeps failing"
    condition_threshold {
      filter = join(" AND ", [
        "resource.type=\"cloud_run_revision\"",
        "metric.type=\"run.googleapis.com/request_count\"",
        "metric.labels.response_code_class=\"5xx\"",
        "resource.labels.service_name=monitoring.regex.full_match(\"${join("|", local.function_names)}\")",
      ])
      comparison      = "COMPARISON_GT"
      threshold_value = 3
      duration        = "0s"
      aggregations {
        alignment_period     = "3600s"
        per_series_aligner   = "ALIGN_SUM"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
  depends_on = [google_project_service.this]
}

# Eventarc drops an event after 24 hours and has no dead letters; the sweep makes what is missing. Long before that, a
# person should know.
resource "google_monitoring_alert_policy" "undelivered" {
  count                 = var.trigger == null ? 0 : 1
  project               = var.project_id
  display_name          = "${var.name}: an event is not taken"
  combiner              = "OR"
  notification_channels = local.channels
  documentation {
    content = "An event is older than an hour and is dropped after 24. Mend what makes ${var.name}-on-object fail; the timer then makes what is missing."
  }
  conditions {
    display_name = "an event is not taken"
    condition_threshold {
      filter = join(" AND ", [
        "resource.type=\"pubsub_subscription\"",
        "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\"",
        "resource.labels.subscription_id=starts_with(\"eventarc-${lower(var.trigger.location)}-${var.name}-on-object-\")",
      ])
      comparison      = "COMPARISON_GT"
      threshold_value = 3600
      duration        = "0s"
      aggregations {
        alignment_period   = "300s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }
  depends_on = [google_project_service.this]
}
