"""What is owed and owing, kept over a journal: both sides of payment, without Ray."""
