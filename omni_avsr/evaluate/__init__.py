"""Error rates over tasks, rates and noise, and the report that shows them."""
