"""What may be said in params.json."""
