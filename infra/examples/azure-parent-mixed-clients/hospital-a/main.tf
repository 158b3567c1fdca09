# A client, in GCP. The parent's card lies in cards/consortium.json.

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
  description = "The organisation's project."
  type        = string
}

variable "region" {
  description = "Region of the buckets and the functions."
  type        = string
  default     = "europe-west1"
}

variable "package" {
  description = "What `fedbucket package gcp --out dist/` wrote."
  type        = string
  default     = "../../../../dist/gcp-client.zip"
}

variable "torch_index" {
  description = "Index of PyTorch's builds for CPUs, without CUDA."
  type        = string
  default     = null
}

variable "cards" {
  description = "Folder of the parents' cards."
  type        = string
  default     = "cards"
}

variable "data_bucket" {
  description = "The existing bucket with the private data."
  type        = string
  default     = null
}

variable "alert_emails" {
  description = "Who is told when a person should look."
  type        = set(string)
  default     = []
}

module "client" {
  source       = "../../../modules/client-gcp"
  project_id   = var.project_id
  region       = var.region
  package      = var.package
  torch_index  = var.torch_index
  client_toml  = file("client.toml")
  data_bucket  = var.data_bucket
  alert_emails = var.alert_emails
  parents = { for file in fileset(var.cards, "*.json") : trimsuffix(file, ".json") => merge(
    jsondecode(file("${var.cards}/${file}")),
    { federations = ["readmission"] },
  ) }
}

output "cards" {
  description = "For each parent in cards/."
  value       = module.client.cards
}

output "state" {
  description = "URL of the private state."
  value       = module.client.state
}

output "settings" {
  description = "The client.toml that the functions have."
  value       = module.client.settings
}
