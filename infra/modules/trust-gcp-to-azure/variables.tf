variable "name" {
  description = "Name of the user-assigned identity that stands for the Google service account here."
  type        = string
}

variable "resource_group_name" {
  description = "The resource group that holds it."
  type        = string
}

variable "location" {
  description = "Azure region."
  type        = string
}

variable "unique_id" {
  description = "The service account's numeric unique id, which no later account of the same name gets."
  type        = string
  validation {
    condition     = can(regex("^[0-9]{15,25}$", var.unique_id))
    error_message = "Expected the numeric unique id of a service account, not its e-mail address."
  }
}

variable "tags" {
  description = "Tags of the identity."
  type        = map(string)
  default     = {}
}
