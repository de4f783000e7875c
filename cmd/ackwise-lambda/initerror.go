package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// reportInit tells the Runtime API why the process cannot start, so that the function's log and its
// invoker show it.
func reportInit(ctx context.Context, runtime string, fault error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	body, err := json.Marshal(map[string]any{"errorType": "Ackwise.Configuration",
		"errorMessage": fault.Error(), "stackTrace": []string{}})
	if err != nil {
		return fmt.Errorf("report to Lambda: %w", err)
	}
	url := "http://" + runtime + "/2018-06-01/runtime/init/error"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("report to Lambda: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Lambda-Runtime-Function-Error-Type", "Ackwise.Configuration")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("report to Lambda: %w", err)
	}
	return answer.Body.Close()
}
