"""What an executor is paid: its ledger over the journal, what its clients have on chain, and when it redeems. It holds no key."""
