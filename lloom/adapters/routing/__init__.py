"""The way from a request to an executor that answers it."""
