"""Who is paid what: the ledgers of both sides over the journal, what clients have on chain, when vouchers are redeemed."""
