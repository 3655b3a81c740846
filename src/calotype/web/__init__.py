"""The HTTP faces over one catalogue and one job record. They decode, name the permission, call, and encode."""
