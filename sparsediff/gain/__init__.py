"""Whether sparse attention pays: predicted from measured kernel times, before the first sparse step."""
