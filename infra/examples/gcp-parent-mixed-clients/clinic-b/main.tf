# A client, in Azure. The parent's card lies in cards/consortium.json.

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
  description = "The organisation's subscription."
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
  description = "What `fedbucket package azure --out dist/` wrote, with the libraries added."
  type        = string
  default     = "../../../../dist/azure-client.zip"
}

variable "cards" {
  description = "Folder of the parents' cards."
  type        = string
  default     = "cards"
}

variable "data_container_id" {
  description = "Resource id of the existing container with the private data."
  type        = string
  default     = null
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

module "client" {
  source              = "../../../modules/client-azure"
  name                = var.name
  resource_group_name = azurerm_resource_group.this.name
  location            = azurerm_resource_group.this.location
  package             = var.package
  client_toml         = file("client.toml")
  data_container_id   = var.data_container_id
  alert_emails        = var.alert_emails
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
