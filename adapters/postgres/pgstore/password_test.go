package pgstore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ackwise/ackwise/adapters/postgres/pgstore"
)

// TestPasswordIsReadBeforeConnecting: a password that cannot be read is the error, though nothing
// listens where the database should be.
func TestPasswordIsReadBeforeConnecting(t *testing.T) {
	missing := errors.New("there is no password")
	_, err := pgstore.OpenURL(t.Context(), "postgres://app@127.0.0.1:1/shop", pgstore.Options{
		Name: "mails", Password: func(context.Context) (string, error) { return "", missing }})
	if !errors.Is(err, missing) {
		t.Errorf("got %v", err)
	}
}
