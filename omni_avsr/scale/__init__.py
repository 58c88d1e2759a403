"""The same work on many machines, through Ray: corpora (`ray_batch`) and serving (`ray_serve`)."""
