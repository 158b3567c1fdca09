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
  name            = "consortium"
  package         = "main.tf"
}

run "the_first_apply_makes_a_card_for_clients_to_come" {
  command = plan
  assert {
    condition     = output.card.bucket == output.bucket && output.cards == {}
    error_message = "Expected the parent's card, and no clients."
  }
}

run "with_the_clients_cards_each_gets_a_card_of_its_own" {
  command = plan
  variables {
    cards = "tests/cards"
  }
  assert {
    condition     = toset(keys(output.cards)) == toset(["hospital-a", "clinic-b"])
    error_message = "Expected a card for each client."
  }
}
