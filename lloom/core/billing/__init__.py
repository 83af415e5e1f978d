"""What is said of each request, paid or not: its quote, the request, the receipt. What is promised and owed is `payment`."""
