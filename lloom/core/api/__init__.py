"""What callers ask for, in OpenAI's words and in others: pure reading and writing of JSON, no sockets."""
