module github.com/ackwise/ackwise

go 1.26

require (
	github.com/alecthomas/kong v1.17.0
	github.com/mattn/go-isatty v0.0.24
	go.yaml.in/yaml/v4 v4.0.0
)

require golang.org/x/sys v0.28.0 // indirect
