"""What is promised, owed and settled: vouchers, the ledgers of both sides, when to redeem. It moves no money."""
