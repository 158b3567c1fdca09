mock_provider "google" {
  override_during = plan
  mock_resource "google_service_account" {
    defaults = { email = "fedbucket-run@project-x.iam.gserviceaccount.com", member = "serviceAccount:fedbucket-run@project-x.iam.gserviceaccount.com", unique_id = "104321098765432109876" }
  }
}

variables {
  project_id = "hospital-a"
  package    = "main.tf"
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
    condition     = keys(output.cards) == ["consortium"] && strcontains(output.settings, "[[identity]]") == true
    error_message = "Expected a card, and a trust if the parent is in the other cloud."
  }
}
