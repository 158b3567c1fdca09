mock_provider "google" {
  override_during = plan
  mock_resource "google_iam_workload_identity_pool" {
    defaults = { name = "projects/7/locations/global/workloadIdentityPools/fedbucket-1" }
  }
  mock_resource "google_iam_workload_identity_pool_provider" {
    defaults = { name = "projects/7/locations/global/workloadIdentityPools/fedbucket-1/providers/entra" }
  }
}

variables {
  project_id = "parent-project"
  pool_id    = "fedbucket-1"
  tenant     = "11111111-1111-4111-8111-111111111111"
  audiences  = ["api://11111111-1111-4111-8111-111111111111/fedbucket"]
  principals = ["22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333"]
}

run "the_tenant_is_the_issuer_and_the_subject_is_the_identity" {
  command = plan
  assert {
    condition     = google_iam_workload_identity_pool_provider.this.oidc[0].issuer_uri == "https://sts.windows.net/11111111-1111-4111-8111-111111111111/"
    error_message = "Expected the tenant's issuer of v1 tokens, with its slash."
  }
  assert {
    condition     = google_iam_workload_identity_pool_provider.this.attribute_mapping == tomap({ "google.subject" = "assertion.sub" })
    error_message = "Expected the subject and nothing else."
  }
  assert {
    condition     = google_iam_workload_identity_pool_provider.this.oidc[0].allowed_audiences == tolist(["api://11111111-1111-4111-8111-111111111111/fedbucket"])
    error_message = "Expected the audiences that were named, and no others."
  }
}

run "nobody_else_of_the_tenant_is_let_in" {
  command = plan
  assert {
    condition     = google_iam_workload_identity_pool_provider.this.attribute_condition == "assertion.sub in ['22222222-2222-4222-8222-222222222222', '33333333-3333-4333-8333-333333333333']"
    error_message = "Expected a condition on the subject."
  }
}

run "members_are_subjects_of_the_pool" {
  command = plan
  assert {
    condition     = output.members["22222222-2222-4222-8222-222222222222"] == "principal://iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/fedbucket-1/subject/22222222-2222-4222-8222-222222222222"
    error_message = "Expected principal://…/subject/<object id>."
  }
  assert {
    condition     = output.provider == "//iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/fedbucket-1/providers/entra"
    error_message = "Expected the provider as google.auth takes it."
  }
}

run "a_pool_in_capitals_is_refused" {
  command = plan
  variables {
    pool_id = "Fedbucket"
  }
  expect_failures = [var.pool_id]
}

run "a_pool_that_begins_as_googles_own_is_refused" {
  command = plan
  variables {
    pool_id = "gcp-fedbucket"
  }
  expect_failures = [var.pool_id]
}

run "a_tenant_by_its_domain_is_refused" {
  command = plan
  variables {
    tenant = "hospital.example"
  }
  expect_failures = [var.tenant]
}

run "an_audience_that_is_no_api_is_refused" {
  command = plan
  variables {
    audiences = ["https://example.com"]
  }
  expect_failures = [var.audiences]
}

run "no_audience_is_refused" {
  command = plan
  variables {
    audiences = []
  }
  expect_failures = [var.audiences]
}

run "a_principal_that_is_no_object_id_is_refused" {
  command = plan
  variables {
    principals = ["' || true || '"]
  }
  expect_failures = [var.principals]
}
