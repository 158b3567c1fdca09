variables {
  federations = ["readmission"]
  client      = "hospital-a"
  bucket      = "b"
  container   = "c"
}

run "folders_end_where_their_names_do" {
  command = plan
  assert {
    condition = output.folders == {
      public      = { readmission = "readmission/public/" }
      inbox       = { readmission = "readmission/inbox/" }
      updates     = { readmission = "readmission/updates/hospital-a/" }
      checkpoints = { readmission = "readmission/checkpoints/" }
    }
    error_message = "Expected each folder to end in a slash, or else hospital-a may read hospital-ab's."
  }
}

run "creation_in_gcs_is_bounded_by_prefix_and_kind" {
  command = plan
  assert {
    condition     = output.gcs_create_conditions.inbox.readmission == "resource.name.startsWith(\"projects/_/buckets/b/objects/readmission/inbox/\") && resource.name.endsWith(\".json\")"
    error_message = "Expected tickets only."
  }
  assert {
    condition     = startswith(output.gcs_create_conditions.updates.readmission, "resource.name.startsWith(\"projects/_/buckets/b/objects/readmission/updates/hospital-a/\") && ")
    error_message = "Expected the client's own updates only."
  }
}

run "nobody_may_write_unless_staged_blocks_are_asked_for" {
  command = plan
  assert {
    condition     = !strcontains(jsonencode(output.actions), "blobs/write") && !strcontains(jsonencode(output.actions), "delete")
    error_message = "Expected read and add only."
  }
}

run "staged_blocks_are_bounded_as_all_that_creates" {
  command = plan
  variables {
    staged_blocks = true
  }
  assert {
    condition     = contains(output.actions.create, "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write") && strcontains(output.abac_conditions.updates, "blobs/write'}")
    error_message = "Expected the right to write, and a condition on it."
  }
}

run "without_a_client_there_is_no_right_to_updates" {
  command = plan
  variables {
    client = null
  }
  assert {
    condition     = output.folders.updates == {} && output.abac_conditions.updates == null
    error_message = "Expected no prefix and no condition."
  }
}

run "identities_are_tables" {
  command = plan
  variables {
    identities = [{ trust = "gcp-to-azure", bucket = "az://a/c", tenant = "t", client = "i" }]
  }
  assert {
    condition     = output.identities_toml == "[[identity]]\nbucket = \"az://a/c\"\nclient = \"i\"\ntenant = \"t\"\ntrust = \"gcp-to-azure\"\n"
    error_message = "Expected one table without what is null."
  }
}

run "an_identity_without_its_tenant_is_refused" {
  command = plan
  variables {
    identities = [{ trust = "gcp-to-azure", bucket = "az://a/c", client = "i" }]
  }
  expect_failures = [var.identities]
}

run "a_trust_in_the_wrong_direction_is_refused" {
  command = plan
  variables {
    identities = [{ trust = "azure-to-gcp", bucket = "az://a/c", provider = "p", resource = "api://r" }]
  }
  expect_failures = [var.identities]
}

run "an_unknown_trust_is_refused" {
  command = plan
  variables {
    identities = [{ trust = "key", bucket = "gs://b", provider = "p", resource = "api://r" }]
  }
  expect_failures = [var.identities]
}

run "a_federation_with_a_slash_is_refused" {
  command = plan
  variables {
    federations = ["a/b"]
  }
  expect_failures = [var.federations]
}

run "a_federation_called_ledger_is_refused" {
  command = plan
  variables {
    federations = ["ledger"]
  }
  expect_failures = [var.federations]
}

run "a_client_with_a_wildcard_is_refused" {
  command = plan
  variables {
    client = "hospital-*"
  }
  expect_failures = [var.client]
}
