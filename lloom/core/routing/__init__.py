"""The client's choice of executor: who can take a request, who is well, who is best. Values in, values out."""
