"""Every function against a slow reference that shares no code with it, and against the laws it must keep."""
