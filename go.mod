module github.com/ackwise/ackwise

go 1.26

require (
	github.com/alecthomas/kong v1.17.0 // indirect
	github.com/mattn/go-isatty v0.0.24 // indirect
	golang.org/x/sys v0.28.0 // indirect
)
