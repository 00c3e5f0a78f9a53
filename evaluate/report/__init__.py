"""A run's report: what is known of it, on one page that opens anywhere."""
