# The parent, in Azure. Cards that clients sent lie in cards/, each under its id on the roster: cards/hospital-a.json.

terraform {
  required_version = ">= 1.11"
  required_providers {
    azuread = {
      source  = "hashicorp/azuread"
      version = ">= 3.7, < 4"
    }
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 4.55, < 5"
    }
  }
}

provider "azuread" {}

provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true # the storage accounts have no keys
  features {
    storage {
      data_plane_available = false # whoever applies needs no right to data
    }
    resource_group {
      prevent_deletion_if_contains_resources = false # Application Insights adds an alert rule that Terraform does not know
    }
  }
}

variable "subscription_id" {
  description = "The parent's subscription."
  type        = string
}

variable "name" {
  description = "Name of the storage account and the function app, unique in the world."
  type        = string
}

variable "location" {
  description = "Azure region."
  type        = string
  default     = "westeurope"
}

variable "package" {
  description = "What `fedbucket package azure --out dist/` wrote."
  type        = string
  default     = "../../../../dist/azure-parent.zip"
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

resource "azurerm_resource_group" "this" {
  name     = "fedbucket-${var.name}"
  location = var.location
}

module "parent" {
  source              = "../../../modules/parent-azure"
  name                = var.name
  resource_group_name = azurerm_resource_group.this.name
  location            = azurerm_resource_group.this.location
  package             = var.package
  alert_emails        = var.alert_emails
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
