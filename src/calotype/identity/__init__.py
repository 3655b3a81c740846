"""Who is calling and what they may do: tokens, users, projects, roles, permissions. Keystone v3 in form."""
