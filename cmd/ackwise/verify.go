package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ackwise/ackwise/queue"
)

type verifyCmd struct {
	dirFlag
	jsonFlag
}

// verifier checks a directory.
type verifier interface {
	Verify(ctx context.Context) (queue.VerifyReport, error)
}

// Run verifies.
func (c *verifyCmd) Run(a *app) (err error) {
	d, err := a.open(a.ctx, c.Dir, false)
	if err != nil {
		return c.damaged(a, err)
	}
	defer closing(d, &err)
	return c.verify(a, d)
}

func (c *verifyCmd) verify(a *app, d verifier) error {
	report, err := d.Verify(a.ctx)
	if err != nil {
		return c.damaged(a, err)
	}
	if err := c.write(a, report); err != nil {
		return err
	}
	if len(report.Findings) > 0 {
		return finding(fmt.Errorf("verify found %s", count(len(report.Findings), "difference")))
	}
	return nil
}

// damaged is a directory that cannot even be opened or read: a finding too, where it is damage.
func (c *verifyCmd) damaged(a *app, err error) error {
	var corrupt *queue.CorruptionError
	if !errors.As(err, &corrupt) || !c.JSON {
		return err
	}
	if werr := c.write(a, queue.VerifyReport{Findings: []string{corrupt.Error()}}); werr != nil {
		return werr
	}
	return err
}

func (c *verifyCmd) write(a *app, r queue.VerifyReport) error {
	r.Findings = listed(r.Findings)
	if c.JSON {
		return writeJSON(a.out, r)
	}
	verdict := "the state agrees with the log"
	if len(r.Findings) > 0 {
		verdict = "the state does NOT agree with the log"
	}
	_, err := fmt.Fprintf(a.out, "%s: %s replayed, %s and %d bytes read, up to position %s\n",
		verdict, count(int(r.Records), "record"), count(int(r.Messages), "message"), r.Bytes,
		dash(string(r.Position)))
	for _, f := range r.Findings {
		if err == nil {
			_, err = fmt.Fprintln(a.out, "  "+printable(f))
		}
	}
	return err
}
