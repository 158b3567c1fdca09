mock_provider "google" {
  override_during = plan
  mock_resource "google_service_account" {
    defaults = { email = "fedbucket-run@project-x.iam.gserviceaccount.com", member = "serviceAccount:fedbucket-run@project-x.iam.gserviceaccount.com", unique_id = "104321098765432109876" }
  }
}

variables {
  project_id = "parent-project"
  package    = "main.tf"
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
    condition     = toset(keys(output.cards)) == toset(["hospital-a"])
    error_message = "Expected a card for each client."
  }
}
