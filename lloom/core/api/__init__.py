"""The languages of callers, OpenAI's and others: pure reading and writing of JSON, no sockets."""
