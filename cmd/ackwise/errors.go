package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// The exit codes. They are frozen.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitFinding = 3
	exitPartial = 4
)

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usage(err error, hint string) error {
	if hint != "" {
		err = &ackwise.HintError{Err: err, Hint: hint}
	}
	return &exitError{exitUsage, err}
}

func usagef(format string, args ...any) error { return usage(fmt.Errorf(format, args...), "") }

func partial(err error) error { return &exitError{exitPartial, err} }

func finding(err error) error { return &exitError{exitFinding, err} }

// report prints an error as one line and a hint, and returns its exit code.
func (a *app) report(err error) int {
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintf(a.err, "ackwise: %v\n", withHint(err))
	var e *exitError
	var corrupt *queue.CorruptionError
	switch {
	case errors.As(err, &e):
		return e.code
	case errors.As(err, &corrupt):
		return exitFinding
	}
	return exitFailed
}

// withHint adds what to do next, where the error does not say it itself.
func withHint(err error) error {
	if _, ok := errors.AsType[*ackwise.HintError](err); ok {
		return err
	}
	hint := ""
	var notFound *ackwise.NotFoundError
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case errors.As(err, &notFound) && notFound.Nearest == "" &&
		(notFound.Kind == "topic" || notFound.Kind == "subscription"):
		hint = "ackwise audit lists what there is; publish and consume make it with --create."
	case errors.Is(err, syscall.EROFS):
		hint = "The directory is on a read-only file system: mount it writable, or copy it."
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		hint = "The disk is full: make room, then repeat. Nothing that was confirmed is lost."
	case errors.Is(err, fs.ErrPermission):
		hint = "Run it as the user who owns the directory."
	case errors.Is(err, syscall.EPIPE):
		hint = "Whoever read the output has ended."
	}
	if hint == "" {
		return err
	}
	return &ackwise.HintError{Err: err, Hint: hint}
}
