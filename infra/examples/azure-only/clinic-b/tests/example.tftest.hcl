mock_provider "azuread" {
  override_during = plan
}

mock_provider "azurerm" {
  override_during = plan
  mock_data "azurerm_client_config" {
    defaults = { tenant_id = "11111111-1111-4111-8111-111111111111", subscription_id = "00000000-0000-4000-8000-000000000000" }
  }
}

variables {
  subscription_id = "00000000-0000-4000-8000-000000000000"
  name            = "clinicb"
  package         = "main.tf"
}

run "the_first_apply_needs_no_parent" {
  command = plan
  assert {
    condition     = output.cards == {} && !strcontains(output.settings, "[[identity]]")
    error_message = "Expected a client that takes part in nothing."
  }
}

run "with_the_parents_card_there_is_one_for_the_parent" {
  command = plan
  variables {
    cards = "tests/cards"
  }
  assert {
    condition     = keys(output.cards) == ["consortium"] && strcontains(output.settings, "[[identity]]") == false
    error_message = "Expected a card, and a trust if the parent is in the other cloud."
  }
}
