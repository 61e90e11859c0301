"""Optional: the record of what a run was made from: code, data, versions, machine."""
