"""Image sets: packed, examined, drawn from and made into batches."""
