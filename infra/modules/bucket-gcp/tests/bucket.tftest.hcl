mock_provider "google" {}

variables {
  project_id = "p"
  name       = "fedbucket-parent"
  location   = "europe-west1"
}

run "nothing_is_public_and_nothing_is_lost" {
  command = plan
  assert {
    condition     = google_storage_bucket.this.uniform_bucket_level_access && google_storage_bucket.this.public_access_prevention == "enforced"
    error_message = "Expected uniform access, and public access prevented."
  }
  assert {
    condition     = google_storage_bucket.this.versioning[0].enabled && google_storage_bucket.this.soft_delete_policy[0].retention_duration_seconds == 2592000
    error_message = "Expected versions, and 30 days of soft delete."
  }
  assert {
    condition     = !google_storage_bucket.this.force_destroy && length(google_storage_bucket.this.lifecycle_rule) == 0
    error_message = "Expected that nothing deletes objects unless it is asked to."
  }
  assert {
    condition     = length(google_storage_bucket.this.encryption) == 0 && length(google_storage_bucket.this.retention_policy) == 0
    error_message = "Expected Google's keys and no retention unless they are asked for."
  }
  assert {
    condition     = output.url == "gs://fedbucket-parent"
    error_message = "Expected the bucket's URL."
  }
}

run "a_key_and_a_locked_retention_are_set_as_asked" {
  command = plan
  variables {
    kms_key   = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    retention = { days = 365, locked = true }
  }
  assert {
    condition     = google_storage_bucket.this.encryption[0].default_kms_key_name == "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    error_message = "Expected the customer's key."
  }
  assert {
    condition     = google_storage_bucket.this.retention_policy[0].retention_period == 31536000 && google_storage_bucket.this.retention_policy[0].is_locked
    error_message = "Expected a locked year."
  }
  assert {
    condition     = !google_storage_bucket.this.versioning[0].enabled
    error_message = "Expected retention in place of versions: a bucket takes one or the other."
  }
}

run "what_expires_is_bounded_by_prefix_and_age" {
  command = plan
  variables {
    expiring = ["readmission/checkpoints/", "sepsis/checkpoints/"]
  }
  assert {
    condition     = length(google_storage_bucket.this.lifecycle_rule) == 1 && one(one(google_storage_bucket.this.lifecycle_rule).action).type == "Delete"
    error_message = "Expected one rule, which deletes."
  }
  assert {
    condition     = one(one(google_storage_bucket.this.lifecycle_rule).condition).age == 30 && one(one(google_storage_bucket.this.lifecycle_rule).condition).with_state == "ANY"
    error_message = "Expected objects and versions that are 30 days old."
  }
  assert {
    condition     = one(one(google_storage_bucket.this.lifecycle_rule).condition).matches_prefix == tolist(["readmission/checkpoints/", "sepsis/checkpoints/"])
    error_message = "Expected nothing to be deleted but what was asked for."
  }
}

run "a_retention_is_not_locked_unless_it_says_so" {
  command = plan
  variables {
    retention = { days = 1 }
  }
  assert {
    condition     = !google_storage_bucket.this.retention_policy[0].is_locked
    error_message = "Expected that what cannot be taken back is never a default."
  }
}

run "a_name_with_a_dot_is_refused" {
  command = plan
  variables {
    name = "fedbucket.example"
  }
  expect_failures = [var.name]
}

run "a_key_that_is_none_is_refused" {
  command = plan
  variables {
    kms_key = "my-key"
  }
  expect_failures = [var.kms_key]
}

run "a_retention_of_no_days_is_refused" {
  command = plan
  variables {
    retention = { days = 0 }
  }
  expect_failures = [var.retention]
}

run "soft_delete_cannot_be_turned_off" {
  command = plan
  variables {
    soft_delete_days = 0
  }
  expect_failures = [var.soft_delete_days]
}
