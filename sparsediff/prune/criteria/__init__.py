"""Criteria: what tells the units that matter from those that do not."""
