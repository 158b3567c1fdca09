# What exchange/keys.py says of keys, as the clouds' rights and filters want it said; tests/infra/test_contract.py holds
# the two together. No provider, so that it can be applied anywhere.

locals {
  public      = { for name in var.federations : name => "${name}/public/" }
  inbox       = { for name in var.federations : name => "${name}/inbox/" }
  updates     = { for name in var.federations : name => "${name}/updates/${var.client}/" if var.client != null }
  checkpoints = { for name in var.federations : name => "${name}/checkpoints/" }

  # Six places are a round's number: six of any character, since neither cloud's conditions know digits.
  tickets = [for folder in values(local.inbox) : "${folder}??????.json"]
  answers = flatten([for folder in values(local.updates) : ["${folder}??????.safetensors", "${folder}??????.withdrawn.json"]])
}

# GCS: a role on a managed folder is held to one prefix; the condition on what creates also bounds the kind of object.
locals {
  objects = "projects/_/buckets/${coalesce(var.bucket, "?")}/objects/"
  gcs_create = {
    inbox = { for name, folder in local.inbox : name =>
      "resource.name.startsWith(\"${local.objects}${folder}\") && resource.name.endsWith(\".json\")"
    }
    updates = { for name, folder in local.updates : name =>
      "resource.name.startsWith(\"${local.objects}${folder}\") && (resource.name.endsWith(\".safetensors\") || resource.name.endsWith(\".withdrawn.json\"))"
    }
  }
}

# Azure: a role has one assignment for a principal and a container, so one condition covers all federations.
locals {
  blobs       = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
  read        = "ActionMatches{'${local.blobs}/read'}"
  creates     = concat(["ActionMatches{'${local.blobs}/add/action'}"], var.staged_blocks ? ["ActionMatches{'${local.blobs}/write'}"] : [])
  not_created = join(" AND ", [for action in local.creates : "!(${action})"])
  name_is     = "@Resource[Microsoft.Storage/storageAccounts/blobServices/containers:name] StringEquals '${coalesce(var.container, "?")}'"

  readable  = { inbox = values(local.inbox), updates = concat(values(local.public), values(local.updates)) }
  creatable = { inbox = local.tickets, updates = local.answers }
  abac = { for side in ["inbox", "updates"] : side => length(local.creatable[side]) == 0 ? null : join(" AND ", [
    "((!(${local.read} AND NOT SubOperationMatches{'Blob.List'})) OR (${local.name_is} AND (${join(" OR ", [
      for folder in local.readable[side] : "@Resource[${local.blobs}:path] StringStartsWith '${folder}'"
    ])})))",
    "((!(${local.read} AND SubOperationMatches{'Blob.List'})) OR (${local.name_is} AND (${join(" OR ", [
      for folder in local.readable[side] : "@Request[${local.blobs}:prefix] StringStartsWith '${folder}'"
    ])})))",
    "((${local.not_created}) OR (${local.name_is} AND (${join(" OR ", [
      for pattern in local.creatable[side] : "@Resource[${local.blobs}:path] StringLike '${pattern}'"
    ])})))",
  ]) }

  subject = "/blobServices/default/containers/${coalesce(var.container, "?")}/blobs/"
}
