mock_provider "google" {
  override_during = plan
  mock_resource "google_service_account" {
    defaults = { email = "x@hospital-a.iam.gserviceaccount.com", member = "serviceAccount:x@hospital-a.iam.gserviceaccount.com", unique_id = "100000000000000000001" }
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
  values          = { email = "run@hospital-a.iam.gserviceaccount.com", member = "serviceAccount:run@hospital-a.iam.gserviceaccount.com", unique_id = "100000000000000000001" }
}

variables {
  project_id  = "hospital-a"
  region      = "europe-west1"
  package     = "main.tf"
  client_toml = "id = \"hospital-a\"\ndata = \"gs://hospital-a-data/rows.npz\"\n"
  data_bucket = "hospital-a-data"
  parents = {
    consortium = {
      federations = ["readmission", "sepsis"]
      bucket      = "gs://parent"
      gcp         = { service_account = "fedbucket@parent-project.iam.gserviceaccount.com", unique_id = "104321098765432109876" }
    }
    ministry = {
      federations = ["census"]
      bucket      = "az://ministry/parent"
      azure       = { tenant = "11111111-1111-4111-8111-111111111111", principal = "22222222-2222-4222-8222-222222222222", audience = "api://11111111-1111-4111-8111-111111111111/ministry" }
      access      = { tenant = "11111111-1111-4111-8111-111111111111", client = "33333333-3333-4333-8333-333333333333" }
    }
  }
}

run "a_parent_creates_and_reads_under_the_inbox_of_its_own_federations" {
  command = plan
  assert {
    condition = { for name, each in google_storage_managed_folder_iam_member.create_inbox : name => "${each.role} ${each.bucket} ${each.managed_folder} ${each.member}" } == {
      readmission = "roles/storage.objectCreator hospital-a-fedbucket-client-inbox readmission/inbox/ serviceAccount:fedbucket@parent-project.iam.gserviceaccount.com"
      sepsis      = "roles/storage.objectCreator hospital-a-fedbucket-client-inbox sepsis/inbox/ serviceAccount:fedbucket@parent-project.iam.gserviceaccount.com"
      census      = "roles/storage.objectCreator hospital-a-fedbucket-client-inbox census/inbox/ principal://iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/pool/subject/22222222-2222-4222-8222-222222222222"
    }
    error_message = "Expected each parent to create tickets of its own federations."
  }
  assert {
    condition     = { for name, each in google_storage_managed_folder_iam_member.read_inbox : name => "${each.role} ${each.managed_folder} ${each.member}" } == { for name, each in google_storage_managed_folder_iam_member.create_inbox : name => "roles/storage.objectViewer ${each.managed_folder} ${each.member}" }
    error_message = "Expected whoever creates to read there, too, and nobody else."
  }
  assert {
    condition     = alltrue([for name, each in google_storage_managed_folder_iam_member.create_inbox : each.condition[0].expression == "resource.name.startsWith(\"projects/_/buckets/hospital-a-fedbucket-client-inbox/objects/${name}/inbox/\") && resource.name.endsWith(\".json\")"])
    error_message = "Expected a condition on every grant that creates."
  }
  assert {
    condition     = alltrue([for each in google_storage_managed_folder.inbox : each.force_destroy])
    error_message = "Expected folders that can be taken away while their objects stay."
  }
}

run "private_state_and_data_have_the_clients_own_bindings_and_no_other" {
  command = plan
  assert {
    condition = { for name, each in google_storage_bucket_iam_member.own : name => "${each.role} ${each.bucket} ${each.member}" } == {
      state_create = "roles/storage.objectCreator hospital-a-fedbucket-client-state serviceAccount:run@hospital-a.iam.gserviceaccount.com"
      state_read   = "roles/storage.objectViewer hospital-a-fedbucket-client-state serviceAccount:run@hospital-a.iam.gserviceaccount.com"
      inbox_read   = "roles/storage.objectViewer hospital-a-fedbucket-client-inbox serviceAccount:run@hospital-a.iam.gserviceaccount.com"
      data_read    = "roles/storage.objectViewer hospital-a-data serviceAccount:run@hospital-a.iam.gserviceaccount.com"
    }
    error_message = "Expected these four rights of the client's own identity; it creates no tickets and changes no data."
  }
  assert {
    condition     = alltrue([for each in concat(values(google_storage_managed_folder_iam_member.read_inbox), values(google_storage_managed_folder_iam_member.create_inbox)) : each.bucket == "hospital-a-fedbucket-client-inbox"])
    error_message = "Expected the parents in the inbox only."
  }
}

run "a_ticket_wakes_the_functions" {
  command = plan
  assert {
    condition     = module.functions.watched == "hospital-a-fedbucket-client-inbox" && module.functions.max_instances == 4
    error_message = "Expected the inbox, and one instance more than federations."
  }
  assert {
    condition     = module.functions.alerts == { for name in ["budget", "refused", "left_out"] : name => module.contract.log_patterns[name] }
    error_message = "Expected alerts on a spent budget, on what was not agreed, on what was not averaged."
  }
}

run "the_settings_are_client_toml_and_what_is_known_here" {
  command = plan
  assert {
    condition     = output.settings == "state = \"gs://hospital-a-fedbucket-client-state\"\ntime_limit = \"540s\"\ninbox = \"gs://hospital-a-fedbucket-client-inbox\"\nid = \"hospital-a\"\ndata = \"gs://hospital-a-data/rows.npz\"\n\n[[identity]]\nbucket = \"az://ministry/parent\"\nclient = \"33333333-3333-4333-8333-333333333333\"\ntenant = \"11111111-1111-4111-8111-111111111111\"\ntrust = \"gcp-to-azure\"\n"
    error_message = "Expected client.toml."
  }
}

run "torch_can_be_built_without_cuda" {
  command = plan
  variables {
    torch_index = "https://index.example/cpu"
  }
  assert {
    condition     = module.functions.build_environment == tomap({ PIP_EXTRA_INDEX_URL = "https://index.example/cpu" })
    error_message = "Expected pip to look there, too."
  }
}

run "the_cards_hold_public_identifiers" {
  command = plan
  assert {
    condition = output.cards["consortium"] == {
      gcp   = { service_account = "run@hospital-a.iam.gserviceaccount.com", unique_id = "100000000000000000001" }
      azure = null
      inbox = { bucket = "gs://hospital-a-fedbucket-client-inbox", tenant = null, client = null, provider = null }
    }
    error_message = "Expected who the client is, and where its inbox."
  }
  assert {
    condition     = output.cards["ministry"].inbox.provider == "//iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/pool/providers/entra"
    error_message = "Expected the way in for the parent in Azure."
  }
}

run "before_the_parent_in_azure_has_let_it_in_there_is_no_identity" {
  command = plan
  variables {
    parents = {
      ministry = {
        federations = ["census"]
        bucket      = "az://ministry/parent"
        azure       = { tenant = "11111111-1111-4111-8111-111111111111", principal = "22222222-2222-4222-8222-222222222222", audience = "api://11111111-1111-4111-8111-111111111111/ministry" }
      }
    }
  }
  assert {
    condition     = !strcontains(output.settings, "identity")
    error_message = "Expected settings that wait for the parent's answer."
  }
}

run "without_an_inbox_no_parent_has_any_right_here" {
  command = plan
  variables {
    inbox       = false
    data_bucket = null
  }
  assert {
    condition     = length(google_storage_managed_folder_iam_member.create_inbox) == 0 && length(google_storage_managed_folder_iam_member.read_inbox) == 0 && length(module.trust) == 0 && length(module.inbox) == 0
    error_message = "Expected no binding of a parent, and no trust."
  }
  assert {
    condition     = keys(google_storage_bucket_iam_member.own) == ["state_create", "state_read"] && module.functions.watched == null && output.cards["consortium"].inbox == null && !strcontains(output.settings, "inbox")
    error_message = "Expected a timer, and no inbox anywhere."
  }
}

run "a_project_by_number_is_refused" {
  command = plan
  variables {
    project_id = "123456789"
  }
  expect_failures = [var.project_id]
}

run "settings_without_an_id_are_refused" {
  command = plan
  variables {
    client_toml = "data = \"rows\""
  }
  expect_failures = [var.client_toml]
}

run "settings_that_name_the_state_are_refused" {
  command = plan
  variables {
    client_toml = "id = \"hospital-a\"\nstate = \"gs://elsewhere\"\n"
  }
  expect_failures = [var.client_toml]
}

run "settings_with_an_identity_are_refused" {
  command = plan
  variables {
    client_toml = "id = \"hospital-a\"\n[[identity]]\n"
  }
  expect_failures = [var.client_toml]
}

run "a_parent_without_a_federation_is_refused" {
  command = plan
  variables {
    parents = { p = { federations = [], bucket = "gs://parent", gcp = { service_account = "fedbucket@parent-project.iam.gserviceaccount.com", unique_id = "1" } } }
  }
  expect_failures = [var.parents]
}

run "a_federation_of_two_parents_is_refused" {
  command = plan
  variables {
    parents = {
      p = { federations = ["readmission"], bucket = "gs://p", gcp = { service_account = "fedbucket@parent-p.iam.gserviceaccount.com", unique_id = "1" } }
      q = { federations = ["readmission"], bucket = "gs://q", gcp = { service_account = "fedbucket@parent-q.iam.gserviceaccount.com", unique_id = "2" } }
    }
  }
  expect_failures = [var.parents]
}

run "a_parent_in_no_cloud_is_refused" {
  command = plan
  variables {
    parents = { p = { federations = ["readmission"], bucket = "gs://parent" } }
  }
  expect_failures = [var.parents]
}

run "a_parent_in_gcp_with_a_bucket_in_azure_is_refused" {
  command = plan
  variables {
    parents = { p = { federations = ["readmission"], bucket = "az://a/c", gcp = { service_account = "fedbucket@parent-project.iam.gserviceaccount.com", unique_id = "1" } } }
  }
  expect_failures = [var.parents]
}

run "everybody_is_no_parent" {
  command = plan
  variables {
    parents = { p = { federations = ["readmission"], bucket = "gs://parent", gcp = { service_account = "allAuthenticatedUsers", unique_id = "1" } } }
  }
  expect_failures = [var.parents]
}
