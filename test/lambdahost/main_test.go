package lambdahost_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
)

// TestMain lets the test binary be a function's process: a bootstrap of a few lines.
func TestMain(m *testing.M) {
	if os.Getenv("LAMBDAHOST_TEST_FUNCTION") != "" {
		os.Exit(bootstrap())
	}
	os.Exit(m.Run())
}

// bootstrap answers each event as it says itself, until it is killed.
func bootstrap() int {
	base := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/"
	if os.Getenv("LAMBDAHOST_TEST_FUNCTION") == "init" {
		post(base+"init/error", `{"errorType":"Config","errorMessage":"ACKWISE_TO is missing"}`)
		return 1
	}
	for {
		r, err := http.Get(base + "invocation/next")
		if err != nil {
			return 2
		}
		event, err := io.ReadAll(r.Body)
		if err != nil {
			return 3
		}
		call := base + "invocation/" + r.Header.Get("Lambda-Runtime-Aws-Request-Id")
		switch string(event) {
		case `"process"`:
			post(call+"/response", os.Getenv("LAMBDAHOST_PROCESS"))
		case `"fail"`:
			post(call+"/error", `{"errorType":"Broken","errorMessage":"the target is away"}`)
		case `"exit"`:
			return 4
		case `"hang"`:
			fmt.Println("hanging")
			select {}
		default:
			post(call+"/response", string(event))
		}
	}
}

func post(url, body string) {
	r, err := http.Post(url, "application/json", bytes.NewReader([]byte(body)))
	if err == nil {
		_ = r.Body.Close() // its answer is not read
	}
}
