"""Recipe to run: the only place that turns settings into objects."""
