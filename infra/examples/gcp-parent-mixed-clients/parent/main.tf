# The parent, in GCP. Cards that clients sent lie in cards/, each under its id on the roster: cards/hospital-a.json.

terraform {
  required_version = ">= 1.11"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.50, < 8"
    }
  }
}

provider "google" {
  project = var.project_id
  region  = var.region
}

variable "project_id" {
  description = "The parent's project."
  type        = string
}

variable "region" {
  description = "Region of the bucket and the functions."
  type        = string
  default     = "europe-west1"
}

variable "package" {
  description = "What `fedbucket package gcp --out dist/` wrote."
  type        = string
  default     = "../../../../dist/gcp-parent.zip"
}

variable "cards" {
  description = "Folder of the clients' cards."
  type        = string
  default     = "cards"
}

variable "alert_emails" {
  description = "Who is told when a person should look."
  type        = set(string)
  default     = []
}

module "parent" {
  source       = "../../../modules/parent-gcp"
  project_id   = var.project_id
  region       = var.region
  package      = var.package
  alert_emails = var.alert_emails
  clients = { for file in fileset(var.cards, "*.json") : trimsuffix(file, ".json") => merge(
    jsondecode(file("${var.cards}/${file}")),
    { federations = ["readmission"] },
  ) }
}

output "bucket" {
  description = "URL of the parent bucket."
  value       = module.parent.bucket
}

output "card" {
  description = "For a client that is not in cards/ yet."
  value       = module.parent.card
}

output "cards" {
  description = "For each client in cards/."
  value       = module.parent.cards
}
