module example.com/beside

go 1.26

require github.com/hansa-ledger/hansa v0.0.0
