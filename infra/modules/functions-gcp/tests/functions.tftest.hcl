mock_provider "google" {
  override_during = plan
  mock_resource "google_cloudfunctions2_function" {
    defaults = { url = "https://x.cloudfunctions.net/timer" }
  }
  mock_data "google_project" {
    defaults = { number = "7" }
  }
  mock_data "google_storage_project_service_account" {
    defaults = { member = "serviceAccount:service-7@gs-project-accounts.iam.gserviceaccount.com" }
  }
}

override_resource {
  target          = google_service_account.this["build"]
  override_during = plan
  values          = { email = "build@p.iam.gserviceaccount.com", member = "serviceAccount:build@p.iam.gserviceaccount.com" }
}

override_resource {
  target          = google_service_account.this["trigger"]
  override_during = plan
  values          = { email = "trigger@p.iam.gserviceaccount.com", member = "serviceAccount:trigger@p.iam.gserviceaccount.com" }
}

override_resource {
  target          = google_service_account.this["timer"]
  override_during = plan
  values          = { email = "timer@p.iam.gserviceaccount.com", member = "serviceAccount:timer@p.iam.gserviceaccount.com" }
}

variables {
  project_id      = "p"
  region          = "europe-west1"
  name            = "fedbucket"
  package         = "main.tf"
  environment     = { FEDBUCKET_PARENT = "bucket = \"gs://b\"" }
  service_account = "run@p.iam.gserviceaccount.com"
  trigger         = { bucket = "b", location = "EU" }
  memory_gib      = 1
  max_instances   = 20
  alerts          = { rejected = { pattern = ": rejected, [a-z-]+: ", title = "an update was rejected", action = "Look." } }
  alert_emails    = ["ops@example.org"]
}

run "the_package_is_named_by_its_hash_and_kept_in_private" {
  command = plan
  assert {
    condition     = google_storage_bucket_object.package.name == "main.tf-${filesha256("main.tf")}.zip" && google_storage_bucket_object.package.bucket == "p-fedbucket-code"
    error_message = "Expected the package's hash in its name."
  }
  assert {
    condition     = alltrue([for each in google_cloudfunctions2_function.this : each.build_config[0].source[0].storage_source[0].object == google_storage_bucket_object.package.name])
    error_message = "Expected both functions from this package."
  }
}

run "two_functions_of_one_zip_as_the_same_identity" {
  command = plan
  assert {
    condition     = { for each in google_cloudfunctions2_function.this : each.name => each.build_config[0].entry_point } == { fedbucket-on-object = "on_object", fedbucket-on-timer = "on_timer" }
    error_message = "Expected the two entry points."
  }
  assert {
    condition     = alltrue([for each in google_cloudfunctions2_function.this : each.service_config[0].service_account_email == "run@p.iam.gserviceaccount.com" && each.build_config[0].runtime == "python312"])
    error_message = "Expected the identity that was given, and Python 3.12."
  }
  assert {
    condition     = alltrue([for each in google_cloudfunctions2_function.this : each.service_config[0].environment_variables == tomap({ FEDBUCKET_PARENT = "bucket = \"gs://b\"" })])
    error_message = "Expected the settings in one variable."
  }
}

run "the_build_gets_its_environment" {
  command = plan
  variables {
    build_environment = { PIP_EXTRA_INDEX_URL = "https://packages.example" }
  }
  assert {
    condition     = alltrue([for each in google_cloudfunctions2_function.this : each.build_config[0].environment_variables == tomap({ PIP_EXTRA_INDEX_URL = "https://packages.example" })])
    error_message = "Expected both builds to see it."
  }
}

run "neither_function_can_be_called_from_outside" {
  command = plan
  assert {
    condition     = alltrue([for each in google_cloudfunctions2_function.this : each.service_config[0].ingress_settings == "ALLOW_INTERNAL_ONLY"])
    error_message = "Expected internal ingress only."
  }
  assert {
    condition = { for name, each in google_cloud_run_service_iam_member.invoker : name => [each.service, each.role, each.member] } == {
      on_object = ["fedbucket-on-object", "roles/run.invoker", "serviceAccount:trigger@p.iam.gserviceaccount.com"]
      on_timer  = ["fedbucket-on-timer", "roles/run.invoker", "serviceAccount:timer@p.iam.gserviceaccount.com"]
    }
    error_message = "Expected each function to be called by its own trigger, and by nobody else."
  }
}

run "new_objects_wake_with_retries_and_the_timer_has_no_trigger" {
  command = plan
  assert {
    condition     = one(google_cloudfunctions2_function.this["on_object"].event_trigger).event_type == "google.cloud.storage.object.v1.finalized" && one(google_cloudfunctions2_function.this["on_object"].event_trigger).retry_policy == "RETRY_POLICY_RETRY"
    error_message = "Expected finalized objects, and retries."
  }
  assert {
    condition     = one(google_cloudfunctions2_function.this["on_object"].event_trigger).trigger_region == "eu" && one(one(google_cloudfunctions2_function.this["on_object"].event_trigger).event_filters).value == "b"
    error_message = "Expected the bucket, where it is."
  }
  assert {
    condition     = one(google_cloudfunctions2_function.this["on_object"].event_trigger).service_account_email == "trigger@p.iam.gserviceaccount.com"
    error_message = "Expected events to be delivered by the trigger's identity."
  }
  assert {
    condition     = length(google_cloudfunctions2_function.this["on_timer"].event_trigger) == 0
    error_message = "Expected no event for the timer."
  }
}

run "the_timer_calls_with_its_own_token" {
  command = plan
  assert {
    condition     = google_cloud_scheduler_job.timer.schedule == "*/10 * * * *" && google_cloud_scheduler_job.timer.http_target[0].http_method == "POST" && google_cloud_scheduler_job.timer.attempt_deadline == "540s"
    error_message = "Expected a call every ten minutes, for as long as a function runs."
  }
  assert {
    condition     = google_cloud_scheduler_job.timer.http_target[0].oidc_token[0].service_account_email == "timer@p.iam.gserviceaccount.com"
    error_message = "Expected the timer's own identity."
  }
}

run "a_call_has_an_instance_to_itself" {
  command = plan
  assert {
    condition     = alltrue([for each in google_cloudfunctions2_function.this : each.service_config[0].max_instance_request_concurrency == 1 && each.service_config[0].timeout_seconds == 540 && each.service_config[0].available_memory == "1Gi" && each.service_config[0].available_cpu == "1"])
    error_message = "Expected one call at a time, and the limits that were set."
  }
  assert {
    condition     = google_cloudfunctions2_function.this["on_object"].service_config[0].max_instance_count == 20 && google_cloudfunctions2_function.this["on_timer"].service_config[0].max_instance_count == 1
    error_message = "Expected 20 instances for objects, one for the timer."
  }
}

run "much_memory_comes_with_cpus" {
  command = plan
  variables {
    memory_gib = 16
  }
  assert {
    condition     = output.cpu == 4
    error_message = "Expected a vCPU for each 4 GiB."
  }
}

run "nothing_on_the_project_but_what_google_offers_nowhere_narrower" {
  command = plan
  assert {
    condition = { for name, each in google_project_iam_member.this : name => "${each.role} ${each.member}" } == {
      build_log       = "roles/logging.logWriter serviceAccount:build@p.iam.gserviceaccount.com"
      build_source    = "roles/storage.objectViewer serviceAccount:build@p.iam.gserviceaccount.com"
      storage_publish = "roles/pubsub.publisher serviceAccount:service-7@gs-project-accounts.iam.gserviceaccount.com"
      trigger_receive = "roles/eventarc.eventReceiver serviceAccount:trigger@p.iam.gserviceaccount.com"
    }
    error_message = "Expected these four and no other; nothing for the identity that the functions run as."
  }
  assert {
    condition     = google_project_iam_member.this["build_source"].condition[0].expression == "resource.name == \"projects/_/buckets/gcf-v2-sources-7-europe-west1\" || resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-7-europe-west1/objects/\")"
    error_message = "Expected builds to be held to the bucket of their source."
  }
  assert {
    condition     = google_storage_bucket_iam_member.build.bucket == "p-fedbucket-code" && google_storage_bucket_iam_member.build.role == "roles/storage.objectViewer"
    error_message = "Expected builds to read the package."
  }
  assert {
    condition     = google_artifact_registry_repository_iam_member.build.role == "roles/artifactregistry.writer" && google_artifact_registry_repository_iam_member.build.member == "serviceAccount:build@p.iam.gserviceaccount.com"
    error_message = "Expected builds to write images, to this repository."
  }
}

run "what_the_log_says_is_counted_and_told" {
  command = plan
  assert {
    condition     = google_logging_metric.this["rejected"].filter == "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=(\"fedbucket-on-object\" OR \"fedbucket-on-timer\") AND (textPayload=~\": rejected, [a-z-]+: \" OR jsonPayload.message=~\": rejected, [a-z-]+: \")"
    error_message = "Expected the pattern in the log of these functions, plain or structured."
  }
  assert {
    condition     = strcontains(one(google_monitoring_alert_policy.said["rejected"].conditions).condition_threshold[0].filter, "logging.googleapis.com/user/fedbucket-rejected") && google_monitoring_alert_policy.said["rejected"].documentation[0].content == "Look."
    error_message = "Expected an alert on the metric, with what to do."
  }
  assert {
    condition     = google_monitoring_notification_channel.email["ops@example.org"].labels.email_address == "ops@example.org" && length(google_monitoring_alert_policy.said["rejected"].notification_channels) == 1 && length(google_monitoring_alert_policy.failing.notification_channels) == 1 && length(google_monitoring_alert_policy.undelivered[0].notification_channels) == 1
    error_message = "Expected all alerts to be told."
  }
}

run "failures_and_events_not_taken_are_told_of" {
  command = plan
  assert {
    condition     = strcontains(one(google_monitoring_alert_policy.failing.conditions).condition_threshold[0].filter, "response_code_class=\"5xx\"") && one(google_monitoring_alert_policy.failing.conditions).condition_threshold[0].threshold_value == 3
    error_message = "Expected an alert on what keeps failing."
  }
  assert {
    condition     = strcontains(one(google_monitoring_alert_policy.undelivered[0].conditions).condition_threshold[0].filter, "starts_with(\"eventarc-eu-fedbucket-on-object-\")") && one(google_monitoring_alert_policy.undelivered[0].conditions).condition_threshold[0].threshold_value == 3600
    error_message = "Expected an alert on an event that is an hour old."
  }
}

run "without_a_bucket_there_is_only_the_timer" {
  command = plan
  variables {
    trigger = null
  }
  assert {
    condition     = keys(google_cloudfunctions2_function.this) == ["on_timer"] && keys(google_cloud_run_service_iam_member.invoker) == ["on_timer"] && output.watched == null
    error_message = "Expected no function for objects, and nobody to call it."
  }
  assert {
    condition     = keys(google_project_iam_member.this) == ["build_log", "build_source"] && length(google_monitoring_alert_policy.undelivered) == 0
    error_message = "Expected no right that only events need."
  }
}

run "what_it_uses_is_turned_on_and_never_off" {
  command = plan
  assert {
    condition     = contains(keys(google_project_service.this), "eventarc") && alltrue([for each in google_project_service.this : !each.disable_on_destroy])
    error_message = "Expected services to stay on."
  }
}

run "a_long_name_is_refused" {
  command = plan
  variables {
    name = "a-name-longer-than-twenty"
  }
  expect_failures = [var.name]
}

run "a_schedule_with_seconds_is_refused" {
  command = plan
  variables {
    schedule = "0 */10 * * * *"
  }
  expect_failures = [var.schedule]
}

run "memory_in_between_is_refused" {
  command = plan
  variables {
    memory_gib = 3
  }
  expect_failures = [var.memory_gib]
}

run "three_cpus_are_refused" {
  command = plan
  variables {
    cpu = 3
  }
  expect_failures = [var.cpu]
}

run "more_memory_than_a_cpu_takes_is_refused" {
  command = plan
  variables {
    memory_gib = 8
    cpu        = 1
  }
  expect_failures = [var.cpu]
}

run "four_cpus_on_one_gib_are_refused" {
  command = plan
  variables {
    cpu = 4
  }
  expect_failures = [var.cpu]
}

run "four_cpus_on_two_gib_are_as_many" {
  command = plan
  variables {
    memory_gib = 2
    cpu        = 4
  }
  assert {
    condition     = output.cpu == 4
    error_message = "Expected the vCPUs that were asked for."
  }
}

run "more_time_than_an_event_gives_is_refused" {
  command = plan
  variables {
    time_limit_seconds = 900
  }
  expect_failures = [var.time_limit_seconds]
}

run "no_instances_are_refused" {
  command = plan
  variables {
    max_instances = 0
  }
  expect_failures = [var.max_instances]
}

run "an_address_without_an_at_is_refused" {
  command = plan
  variables {
    alert_emails = ["ops"]
  }
  expect_failures = [var.alert_emails]
}

run "a_package_that_is_not_there_is_refused" {
  command = plan
  variables {
    package = "no-such.zip"
  }
  expect_failures = [var.package]
}
