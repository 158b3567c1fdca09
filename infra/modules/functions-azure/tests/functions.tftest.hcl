mock_provider "azuread" {
  override_during = plan
}

mock_provider "azurerm" {
  override_during = plan
  mock_data "azurerm_client_config" {
    defaults = { tenant_id = "11111111-1111-4111-8111-111111111111", subscription_id = "00000000-0000-4000-8000-000000000000" }
  }
  mock_resource "azurerm_storage_account" {
    defaults = { id = "/account/fedbuckethost" }
  }
  mock_resource "azurerm_eventgrid_system_topic" {
    defaults = { id = "/topic", identity = { principal_id = "55555555-5555-4555-8555-555555555555" } }
  }
  mock_resource "azurerm_application_insights" {
    defaults = { id = "/insights", connection_string = "InstrumentationKey=x" }
  }
  mock_resource "azurerm_role_definition" {
    defaults = { role_definition_resource_id = "/role/take" }
  }
  mock_resource "azurerm_monitor_action_group" {
    defaults = { id = "/group" }
  }
}

override_resource {
  target          = azurerm_storage_queue.this["objects"]
  override_during = plan
  values          = { id = "/account/fedbuckethost/queue/objects" }
}

override_resource {
  target          = azurerm_storage_queue.this["objects-poison"]
  override_during = plan
  values          = { id = "/account/fedbuckethost/queue/objects-poison" }
}

override_resource {
  target          = module.host.azurerm_storage_container.this["dead-letters"]
  override_during = plan
  values          = { id = "/account/fedbuckethost/container/dead-letters" }
}

variables {
  name                = "fedbucket"
  resource_group_name = "g"
  location            = "westeurope"
  package             = "main.tf"
  settings            = { FEDBUCKET_PARENT = "bucket = \"az://a/c\"" }
  identity            = { id = "/identity", client_id = "33333333-3333-4333-8333-333333333333", principal_id = "22222222-2222-4222-8222-222222222222" }
  watch               = { account_id = "/account/a", begins_with = "/blobServices/default/containers/c/blobs/", ends_with = ".json", contains = ["/inbox/"] }
  memory_mb           = 2048
  alerts              = { rejected = { pattern = ": rejected, [a-z-]+: ", title = "an update was rejected", action = "Look." } }
  alert_emails        = ["ops@example.org"]
}

run "the_app_has_one_identity_and_no_passwords" {
  command = plan
  assert {
    condition     = azurerm_function_app_flex_consumption.this.identity[0].type == "UserAssigned" && azurerm_function_app_flex_consumption.this.identity[0].identity_ids == tolist(["/identity"])
    error_message = "Expected the identity that was given, and no other."
  }
  assert {
    condition     = azurerm_function_app_flex_consumption.this.storage_authentication_type == "UserAssignedIdentity" && azurerm_function_app_flex_consumption.this.storage_user_assigned_identity_id == "/identity" && azurerm_function_app_flex_consumption.this.storage_access_key == null
    error_message = "Expected its package to be read by the identity."
  }
  assert {
    condition     = !azurerm_function_app_flex_consumption.this.webdeploy_publish_basic_authentication_enabled && azurerm_application_insights.this.local_authentication_disabled && !azurerm_log_analytics_workspace.this.local_authentication_enabled
    error_message = "Expected no password for publishing, and no key for logs."
  }
  assert {
    condition     = azurerm_function_app_flex_consumption.this.https_only && azurerm_function_app_flex_consumption.this.site_config[0].ip_restriction_default_action == "Deny" && azurerm_function_app_flex_consumption.this.site_config[0].minimum_tls_version == "1.2"
    error_message = "Expected an app that nobody can call."
  }
}

run "the_settings_are_what_the_functions_read" {
  command = plan
  assert {
    condition = azurerm_function_app_flex_consumption.this.app_settings == tomap({
      FEDBUCKET_PARENT                            = "bucket = \"az://a/c\""
      FEDBUCKET_QUEUE                             = "objects"
      FEDBUCKET_QUEUE_CONNECTION__queueServiceUri = "https://fedbuckethost.queue.core.windows.net/"
      FEDBUCKET_QUEUE_CONNECTION__credential      = "managedidentity"
      FEDBUCKET_QUEUE_CONNECTION__clientId        = "33333333-3333-4333-8333-333333333333"
      FEDBUCKET_TIMER                             = "0 */10 * * * *"
      AZURE_CLIENT_ID                             = "33333333-3333-4333-8333-333333333333"
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING   = "Authorization=AAD;ClientId=33333333-3333-4333-8333-333333333333"
      AzureFunctionsJobHost__functionTimeout      = "00:30:00"
      AzureWebJobsStorage                         = ""
      AzureWebJobsStorage__accountName            = "fedbuckethost"
      AzureWebJobsStorage__credential             = "managedidentity"
      AzureWebJobsStorage__clientId               = "33333333-3333-4333-8333-333333333333"
    })
    error_message = "Expected these settings, none of them a key."
  }
  assert {
    condition     = azurerm_function_app_flex_consumption.this.runtime_name == "python" && azurerm_function_app_flex_consumption.this.runtime_version == "3.13" && azurerm_service_plan.this.sku_name == "FC1"
    error_message = "Expected Python 3.13 on Flex Consumption."
  }
  assert {
    condition     = azurerm_function_app_flex_consumption.this.instance_memory_in_mb == 2048 && azurerm_function_app_flex_consumption.this.maximum_instance_count == 40
    error_message = "Expected the limits that were set."
  }
}

run "a_time_limit_is_written_as_the_host_reads_it" {
  command = plan
  variables {
    time_limit_seconds = 5445
  }
  assert {
    condition     = azurerm_function_app_flex_consumption.this.app_settings.AzureFunctionsJobHost__functionTimeout == "01:30:45"
    error_message = "Expected hours, minutes and seconds."
  }
}

run "another_package_is_published_again" {
  command = plan
  assert {
    condition     = terraform_data.published.triggers_replace[0] == filesha256("main.tf")
    error_message = "Expected the package's hash to decide."
  }
}

run "a_package_that_brings_its_libraries_is_published_as_it_is" {
  command = plan
  variables {
    remote_build = false
  }
  assert {
    condition     = !terraform_data.published.triggers_replace[2] && !output.remote_build
    error_message = "Expected no build."
  }
}

run "new_blobs_that_pass_the_filters_go_into_the_queue" {
  command = plan
  assert {
    condition     = azurerm_eventgrid_system_topic.this[0].source_resource_id == "/account/a" && azurerm_eventgrid_system_topic.this[0].topic_type == "Microsoft.Storage.StorageAccounts"
    error_message = "Expected the events of the account that was given."
  }
  assert {
    condition     = azurerm_eventgrid_system_topic_event_subscription.this[0].included_event_types == tolist(["Microsoft.Storage.BlobCreated"]) && azurerm_eventgrid_system_topic_event_subscription.this[0].event_delivery_schema == "EventGridSchema"
    error_message = "Expected new blobs only."
  }
  assert {
    condition     = azurerm_eventgrid_system_topic_event_subscription.this[0].subject_filter[0].subject_begins_with == "/blobServices/default/containers/c/blobs/" && azurerm_eventgrid_system_topic_event_subscription.this[0].subject_filter[0].subject_ends_with == ".json" && azurerm_eventgrid_system_topic_event_subscription.this[0].subject_filter[0].case_sensitive
    error_message = "Expected the subject's beginning and end."
  }
  assert {
    condition     = one(azurerm_eventgrid_system_topic_event_subscription.this[0].advanced_filter[0].string_contains).key == "subject" && one(azurerm_eventgrid_system_topic_event_subscription.this[0].advanced_filter[0].string_contains).values == tolist(["/inbox/"])
    error_message = "Expected what the subject contains."
  }
  assert {
    condition     = azurerm_eventgrid_system_topic_event_subscription.this[0].storage_queue_endpoint[0].queue_name == "objects" && azurerm_eventgrid_system_topic_event_subscription.this[0].storage_queue_endpoint[0].storage_account_id == "/account/fedbuckethost"
    error_message = "Expected the queue that the functions read."
  }
  assert {
    condition     = azurerm_eventgrid_system_topic_event_subscription.this[0].retry_policy[0].event_time_to_live == 1440 && azurerm_eventgrid_system_topic_event_subscription.this[0].retry_policy[0].max_delivery_attempts == 30
    error_message = "Expected a day of retries."
  }
  assert {
    condition     = azurerm_eventgrid_system_topic_event_subscription.this[0].storage_blob_dead_letter_destination[0].storage_blob_container_name == "dead-letters" && azurerm_eventgrid_system_topic_event_subscription.this[0].delivery_identity[0].type == "SystemAssigned" && azurerm_eventgrid_system_topic_event_subscription.this[0].dead_letter_identity[0].type == "SystemAssigned"
    error_message = "Expected dead letters, and delivery by identity."
  }
}

run "the_functions_have_rights_in_their_own_account_only" {
  command = plan
  assert {
    condition = { for name, each in azurerm_role_assignment.this : name => "${each.role_definition_name} on ${each.scope}" } == {
      host    = "Storage Blob Data Owner on /account/fedbuckethost"
      measure = "Storage Queue Data Reader on /account/fedbuckethost/queue/objects"
      poison  = "Storage Queue Data Message Sender on /account/fedbuckethost/queue/objects-poison"
      log     = "Monitoring Metrics Publisher on /insights"
    }
    error_message = "Expected these rights and no other."
  }
  assert {
    condition     = alltrue([for each in azurerm_role_assignment.this : each.principal_id == "22222222-2222-4222-8222-222222222222"])
    error_message = "Expected the functions' identity."
  }
  assert {
    condition = { for name, each in azurerm_role_assignment.events : name => "${each.role_definition_name} on ${each.scope}" } == {
      deliver = "Storage Queue Data Message Sender on /account/fedbuckethost/queue/objects"
      bury    = "Storage Blob Data Contributor on /account/fedbuckethost/container/dead-letters"
    }
    error_message = "Expected that events may be put into the queue and buried, and no more."
  }
}

run "a_message_can_be_hidden_for_longer_and_given_back" {
  command = plan
  assert {
    condition     = toset(azurerm_role_definition.take.permissions[0].data_actions) == toset([for action in ["read", "process/action", "write"] : "Microsoft.Storage/storageAccounts/queueServices/queues/messages/${action}"]) && length(azurerm_role_definition.take.permissions[0].actions) == 0
    error_message = "Expected to get, update and delete messages, and no right to the queue itself."
  }
  assert {
    condition     = azurerm_role_assignment.take.role_definition_id == "/role/take" && azurerm_role_assignment.take.scope == "/account/fedbuckethost/queue/objects" && azurerm_role_assignment.take.principal_id == "22222222-2222-4222-8222-222222222222"
    error_message = "Expected the functions' identity to take from their own queue only."
  }
}

run "google_needs_an_audience_and_nobody_else_does" {
  command = plan
  assert {
    condition     = length(azuread_application.google) == 0 && length(azuread_service_principal.google) == 0
    error_message = "Expected no application."
  }
  assert {
    condition     = output.audience == "api://11111111-1111-4111-8111-111111111111/fedbucket"
    error_message = "Expected the audience to be known beforehand."
  }
}

run "tokens_for_google_are_of_version_1_which_the_trust_names" {
  command = plan
  variables {
    asserts_to_google = true
  }
  assert {
    condition     = azuread_application.google[0].identifier_uris == tolist(["api://11111111-1111-4111-8111-111111111111/fedbucket"]) && azuread_application.google[0].api[0].requested_access_token_version == 1 && azuread_application.google[0].sign_in_audience == "AzureADMyOrg" && length(azuread_application.google[0].password) == 0
    error_message = "Expected an application that is an audience and nothing else."
  }
}

run "what_the_log_says_is_told" {
  command = plan
  assert {
    condition     = strcontains(one(azurerm_monitor_scheduled_query_rules_alert_v2.this["rejected"].criteria).query, "matches regex @': rejected, [a-z-]+: '") && strcontains(one(azurerm_monitor_scheduled_query_rules_alert_v2.this["rejected"].criteria).query, "AppRoleName == 'fedbucket'")
    error_message = "Expected the pattern in the log of this app."
  }
  assert {
    condition     = alltrue([for each in azurerm_monitor_scheduled_query_rules_alert_v2.this : each.action[0].action_groups == tolist(["/group"])]) && keys(azurerm_monitor_scheduled_query_rules_alert_v2.this) == ["failing", "poison", "rejected"]
    error_message = "Expected alerts on what is said, on failures and on events that were given up."
  }
  assert {
    condition     = one(azurerm_monitor_scheduled_query_rules_alert_v2.this["failing"].criteria).threshold == 3 && strcontains(one(azurerm_monitor_scheduled_query_rules_alert_v2.this["poison"].criteria).query, "MaxDequeueCount")
    error_message = "Expected single failures to pass, and no poison."
  }
  assert {
    condition     = one(azurerm_monitor_metric_alert.dead_letters[0].criteria).metric_name == "DeadLetteredCount" && one(azurerm_monitor_metric_alert.dead_letters[0].action).action_group_id == "/group"
    error_message = "Expected an alert on dead letters."
  }
  assert {
    condition     = one(azurerm_monitor_action_group.this.email_receiver).email_address == "ops@example.org"
    error_message = "Expected somebody to be told."
  }
}

run "without_an_account_to_watch_there_is_only_the_timer" {
  command = plan
  variables {
    watch = null
  }
  assert {
    condition     = length(azurerm_eventgrid_system_topic.this) == 0 && length(azurerm_eventgrid_system_topic_event_subscription.this) == 0 && length(azurerm_role_assignment.events) == 0 && length(azurerm_monitor_metric_alert.dead_letters) == 0
    error_message = "Expected no events."
  }
}

run "a_name_with_a_hyphen_is_refused" {
  command = plan
  variables {
    name = "fed-bucket"
  }
  expect_failures = [var.name]
}

run "a_name_too_short_for_a_log_workspace_is_refused" {
  command = plan
  variables {
    name = "fed"
  }
  expect_failures = [var.name]
}

run "a_package_that_is_not_there_is_refused" {
  command = plan
  variables {
    package = "no-such.zip"
  }
  expect_failures = [var.package]
}

run "a_schedule_without_seconds_is_refused" {
  command = plan
  variables {
    schedule = "*/10 * * * *"
  }
  expect_failures = [var.schedule]
}

run "memory_in_between_is_refused" {
  command = plan
  variables {
    memory_mb = 1024
  }
  expect_failures = [var.memory_mb]
}

run "a_time_limit_of_a_day_is_refused" {
  command = plan
  variables {
    time_limit_seconds = 86400
  }
  expect_failures = [var.time_limit_seconds]
}

run "fewer_instances_than_the_plan_allows_are_refused" {
  command = plan
  variables {
    max_instances = 1
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
