mock_provider "google" {
  override_during = plan
  mock_resource "google_service_account" {
    defaults = { email = "x@parent-project.iam.gserviceaccount.com", member = "serviceAccount:x@parent-project.iam.gserviceaccount.com", unique_id = "104321098765432109876" }
  }
  mock_resource "google_iam_workload_identity_pool" {
    defaults = { name = "projects/7/locations/global/workloadIdentityPools/pool" }
  }
  mock_resource "google_iam_workload_identity_pool_provider" {
    defaults = { name = "projects/7/locations/global/workloadIdentityPools/pool/providers/entra" }
  }
}

override_resource {
  target          = google_service_account.this
  override_during = plan
  values          = { email = "fedbucket-parent@parent-project.iam.gserviceaccount.com", member = "serviceAccount:fedbucket-parent@parent-project.iam.gserviceaccount.com", unique_id = "104321098765432109876" }
}

variables {
  project_id = "parent-project"
  region     = "europe-west1"
  package    = "main.tf"
  clients = {
    hospital-a = {
      federations = ["readmission", "sepsis"]
      gcp         = { service_account = "fedbucket@hospital-a.iam.gserviceaccount.com", unique_id = "100000000000000000001" }
      inbox       = { bucket = "gs://hospital-a-inbox" }
    }
    clinic-b = {
      federations = ["readmission"]
      azure       = { tenant = "11111111-1111-4111-8111-111111111111", principal = "22222222-2222-4222-8222-222222222222", audience = "api://11111111-1111-4111-8111-111111111111/clinicb" }
      inbox       = { bucket = "az://clinicb/inbox", tenant = "11111111-1111-4111-8111-111111111111", client = "33333333-3333-4333-8333-333333333333" }
    }
  }
}

run "a_client_reads_public_and_nothing_else_of_others" {
  command = plan
  assert {
    condition = { for name, each in google_storage_managed_folder_iam_member.public : name => "${each.role} ${each.managed_folder} ${each.member}" } == {
      "readmission/clinic-b"   = "roles/storage.objectViewer readmission/public/ principal://iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/pool/subject/22222222-2222-4222-8222-222222222222"
      "readmission/hospital-a" = "roles/storage.objectViewer readmission/public/ serviceAccount:fedbucket@hospital-a.iam.gserviceaccount.com"
      "sepsis/hospital-a"      = "roles/storage.objectViewer sepsis/public/ serviceAccount:fedbucket@hospital-a.iam.gserviceaccount.com"
    }
    error_message = "Expected each client to read public/ of its own federations."
  }
}

run "a_client_creates_and_reads_its_own_updates" {
  command = plan
  assert {
    condition = { for name, each in google_storage_managed_folder_iam_member.create_updates : name => "${each.role} ${each.managed_folder} ${each.member}" } == {
      "readmission/clinic-b"   = "roles/storage.objectCreator readmission/updates/clinic-b/ principal://iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/pool/subject/22222222-2222-4222-8222-222222222222"
      "readmission/hospital-a" = "roles/storage.objectCreator readmission/updates/hospital-a/ serviceAccount:fedbucket@hospital-a.iam.gserviceaccount.com"
      "sepsis/hospital-a"      = "roles/storage.objectCreator sepsis/updates/hospital-a/ serviceAccount:fedbucket@hospital-a.iam.gserviceaccount.com"
    }
    error_message = "Expected each client to create under its own prefix."
  }
  assert {
    condition = { for name, each in google_storage_managed_folder_iam_member.read_updates : name => "${each.role} ${each.managed_folder}" } == {
      "readmission/clinic-b"   = "roles/storage.objectViewer readmission/updates/clinic-b/"
      "readmission/hospital-a" = "roles/storage.objectViewer readmission/updates/hospital-a/"
      "sepsis/hospital-a"      = "roles/storage.objectViewer sepsis/updates/hospital-a/"
    }
    error_message = "Expected each client to read its own updates."
  }
  assert {
    condition     = alltrue([for name, each in google_storage_managed_folder_iam_member.create_updates : strcontains(each.condition[0].expression, "startsWith(\"projects/_/buckets/parent-project-fedbucket-parent/objects/${each.managed_folder}\")")])
    error_message = "Expected a condition on every grant that creates."
  }
  assert {
    condition     = alltrue([for each in google_storage_managed_folder.updates : each.force_destroy]) && keys(google_storage_managed_folder.public) == ["readmission", "sepsis"]
    error_message = "Expected a folder a prefix, which can be taken away while its objects stay."
  }
}

run "nobody_may_overwrite_or_delete" {
  command = plan
  assert {
    condition = toset(concat(
      [for each in google_storage_managed_folder_iam_member.public : each.role],
      [for each in google_storage_managed_folder_iam_member.read_updates : each.role],
      [for each in google_storage_managed_folder_iam_member.create_updates : each.role],
      [for each in google_storage_bucket_iam_member.parent : each.role],
    )) == toset(["roles/storage.objectCreator", "roles/storage.objectViewer"])
    error_message = "Expected to create and to view, for everybody."
  }
  assert {
    condition     = alltrue([for each in google_storage_bucket_iam_member.parent : each.bucket == "parent-project-fedbucket-parent" && each.member == "serviceAccount:fedbucket-parent@parent-project.iam.gserviceaccount.com"])
    error_message = "Expected the parent alone to have rights on a whole bucket, its own."
  }
}

run "a_new_object_of_the_parent_bucket_wakes_the_functions" {
  command = plan
  assert {
    condition     = module.functions.watched == "parent-project-fedbucket-parent" && module.functions.max_instances == 4
    error_message = "Expected the parent bucket, and four instances for two clients."
  }
  assert {
    condition     = module.functions.alerts == { rejected = module.contract.log_patterns.rejected, late = module.contract.log_patterns.late }
    error_message = "Expected alerts on rejected updates and late rounds."
  }
}

run "the_settings_name_the_bucket_and_the_way_into_azure" {
  command = plan
  assert {
    condition     = output.settings == "bucket = \"gs://parent-project-fedbucket-parent\"\ntime_limit = \"540s\"\nworkers = 1\n\n[[identity]]\nbucket = \"az://clinicb/inbox\"\nclient = \"33333333-3333-4333-8333-333333333333\"\ntenant = \"11111111-1111-4111-8111-111111111111\"\ntrust = \"gcp-to-azure\"\n\n"
    error_message = "Expected parent.toml."
  }
}

run "workers_are_as_many_as_cpus" {
  command = plan
  variables {
    memory_gib         = 8
    time_limit_seconds = 300
    max_instances      = 7
  }
  assert {
    condition     = startswith(output.settings, "bucket = \"gs://parent-project-fedbucket-parent\"\ntime_limit = \"300s\"\nworkers = 2\n") && module.functions.max_instances == 7
    error_message = "Expected two workers on two vCPUs."
  }
}

run "the_cards_hold_public_identifiers" {
  command = plan
  assert {
    condition = output.card == {
      bucket = "gs://parent-project-fedbucket-parent"
      gcp    = { service_account = "fedbucket-parent@parent-project.iam.gserviceaccount.com", unique_id = "104321098765432109876" }
      azure  = null
      access = null
    }
    error_message = "Expected who the parent is."
  }
  assert {
    condition     = output.cards["clinic-b"].access.provider == "//iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/pool/providers/entra" && output.cards["hospital-a"].access == null
    error_message = "Expected the way in for the client in Azure, and none for the other."
  }
}

run "without_clients_there_is_a_bucket_and_nobody_in_it" {
  command = plan
  variables {
    clients = {}
  }
  assert {
    condition     = length(google_storage_managed_folder_iam_member.public) == 0 && length(module.trust) == 0 && output.cards == {}
    error_message = "Expected no rights."
  }
}

run "many_clients_get_instances_up_to_a_limit" {
  command = plan
  variables {
    clients = { for number in range(80) : "client-${number}" => {
      federations = ["readmission"]
      gcp         = { service_account = "fedbucket@client-${number}.iam.gserviceaccount.com", unique_id = "100000000000000000001" }
    } }
  }
  assert {
    condition     = module.functions.max_instances == 100
    error_message = "Expected a limit."
  }
}

run "a_project_by_number_is_refused" {
  command = plan
  variables {
    project_id = "123456789"
  }
  expect_failures = [var.project_id]
}

run "a_client_without_a_federation_is_refused" {
  command = plan
  variables {
    clients = { a = { federations = [], gcp = { service_account = "fedbucket@hospital-a.iam.gserviceaccount.com", unique_id = "1" } } }
  }
  expect_failures = [var.clients]
}

run "a_client_in_no_cloud_is_refused" {
  command = plan
  variables {
    clients = { a = { federations = ["readmission"] } }
  }
  expect_failures = [var.clients]
}

run "everybody_is_no_client" {
  command = plan
  variables {
    clients = { a = { federations = ["readmission"], gcp = { service_account = "allUsers", unique_id = "1" } } }
  }
  expect_failures = [var.clients]
}

run "an_inbox_elsewhere_is_refused" {
  command = plan
  variables {
    clients = { a = { federations = ["readmission"], gcp = { service_account = "fedbucket@hospital-a.iam.gserviceaccount.com", unique_id = "1" }, inbox = { bucket = "https://hospital-a.example" } } }
  }
  expect_failures = [var.clients]
}

run "an_inbox_in_azure_without_a_way_in_is_refused" {
  command = plan
  variables {
    clients = { a = { federations = ["readmission"], gcp = { service_account = "fedbucket@hospital-a.iam.gserviceaccount.com", unique_id = "1" }, inbox = { bucket = "az://a/inbox" } } }
  }
  expect_failures = [var.clients]
}
