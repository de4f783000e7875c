package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// txnVersions bounds what a transactional producer asks with: the newer form of TxnOffsetCommit
// joins the transaction by itself, and whether it does depends on a feature of the cluster. The
// older form, after AddOffsetsToTxn, works with all of them. It also keeps the client from the
// transactions of KIP-890: with those it does not leave out the end of a transaction whose records
// it has not in its books yet (see commitAgain), but aborts it, and calls that a commit.
func txnVersions() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(int16(kmsg.TxnOffsetCommit), 4)
	v.SetMaxKeyVersion(int16(kmsg.OffsetFetch), 9) // the newer form names topics by ID
	return v
}

// excusable reports whether a batch was aborted for something that is no failure: the group is
// rebalancing, or the note is full for a while.
func excusable(err error) bool {
	for _, t := range []error{kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.StaleMemberEpoch,
		logsource.ErrNoteFull, logsource.ErrFenced, ackwise.ErrLeaseLost} {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// send makes the positions and notes a part of the transaction, fenced by the group's generation.
func (t *Transactor) send(ctx context.Context, marks []logsource.Mark) error {
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	if err := t.src.fenceOf(req); err != nil {
		return err
	}
	topics, stays, err := t.src.txnOffsets(marks)
	if err != nil {
		return err
	}
	cl := t.sink.cl
	id, epoch, err := cl.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("ask for the producer's ID: %w", err)
	}
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch = t.sink.o.TransactionalID, id, epoch
	add.Group = req.Group
	added, err := add.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(added.ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("add the group to the transaction: %w", t.sink.txn.ended(err))
	}
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = t.sink.o.TransactionalID, id, epoch
	req.Topics = topics
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return fmt.Errorf("commit positions in the transaction: %w", err)
	}
	return t.sent(resp, stays)
}

// sent returns what became of the positions. Where the group has removed this member the error is
// logsource.ErrFenced, and the partition comes anew.
func (t *Transactor) sent(resp *kmsg.TxnOffsetCommitResponse, stays map[string]*part) error {
	var faults []error
	want := len(stays)
	for i := range resp.Topics {
		for _, p := range resp.Topics[i].Partitions {
			name := partitionName(resp.Topics[i].Topic, p.Partition)
			if stays[name] == nil {
				continue
			}
			want--
			if err := t.src.group.commitError(stays[name], kerr.ErrorForCode(p.ErrorCode)); err != nil {
				faults = append(faults,
					fmt.Errorf("commit the position of %s in the transaction: %w", name, err))
			}
		}
	}
	if len(faults) == 0 && want != 0 {
		return errNoAnswer
	}
	return errors.Join(faults...)
}

// end commits the transaction, and finds out what became of it where nobody heard.
func (t *Transactor) end(ctx context.Context, marks []logsource.Mark) error {
	err := t.sink.txn.commit(ctx)
	if err == nil || !errors.Is(err, errUnknown) {
		return err
	}
	limit := t.sink.o.TransactionTimeout + endTimeout
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), limit, err)
	defer cancel()
	done, fault := t.committed(ctx, marks)
	switch {
	case fault != nil:
		fault = &unsettledError{fmt.Errorf("%w: %w: %w", logsource.ErrUnsettled, err, fault)}
		t.src.group.fail(fault) // its partitions cannot be read on from a place that nobody knows
		return fault
	case done:
		return nil
	}
	return fmt.Errorf("%w: it turned out to be aborted", t.sink.txn.ended(err))
}

// unsettledError ends the source.
type unsettledError struct{ err error }

func (e *unsettledError) Error() string { return e.err.Error() }
func (e *unsettledError) Unwrap() error { return e.err }
func (e *unsettledError) Final() bool   { return true }

// committed asks the group for its positions until it knows them: a pending transaction holds the
// answer back, until its end or its time-out. They are the transaction's own, or what was before.
func (t *Transactor) committed(ctx context.Context, marks []logsource.Mark) (bool, error) {
	for {
		done, err := t.ask(ctx, marks)
		if err == nil {
			return done, nil
		}
		timer := time.NewTimer(200 * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false, errors.Join(err, context.Cause(ctx))
		case <-timer.C:
		}
	}
}

func (t *Transactor) ask(ctx context.Context, marks []logsource.Mark) (bool, error) {
	want, _, err := t.src.txnOffsets(marks)
	if err != nil {
		return false, err
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	req.Group = t.src.opts.Group
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = req.Group
	for i := range want {
		rt, gt := kmsg.NewOffsetFetchRequestTopic(), kmsg.NewOffsetFetchRequestGroupTopic()
		rt.Topic, gt.Topic = want[i].Topic, want[i].Topic
		for _, p := range want[i].Partitions {
			rt.Partitions = append(rt.Partitions, p.Partition)
			gt.Partitions = append(gt.Partitions, p.Partition)
		}
		req.Topics, g.Topics = append(req.Topics, rt), append(g.Topics, gt)
	}
	req.Groups = append(req.Groups, g)
	resp, err := req.RequestWith(ctx, t.sink.cl)
	if err != nil {
		return false, err
	}
	have, err := fetchedOffsets(resp)
	if err != nil {
		return false, err
	}
	same := 0
	for i := range want {
		for _, p := range want[i].Partitions {
			if have[partitionName(want[i].Topic, p.Partition)] == (place{p.Offset, *p.Metadata}) {
				same++
			}
		}
	}
	if same != 0 && same != len(marks) {
		return false, fmt.Errorf("%d of %d positions are the transaction's", same, len(marks))
	}
	return same > 0, nil
}

// place is what a group remembers of a partition.
type place struct {
	offset   int64
	metadata string
}

func fetchedOffsets(resp *kmsg.OffsetFetchResponse) (map[string]place, error) {
	out := map[string]place{}
	faults := []error{kerr.ErrorForCode(resp.ErrorCode)}
	add := func(topic string, p int32, offset int64, metadata *string, code int16) {
		faults = append(faults, kerr.ErrorForCode(code))
		at := place{offset: offset}
		if metadata != nil {
			at.metadata = *metadata
		}
		out[partitionName(topic, p)] = at
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			add(t.Topic, p.Partition, p.Offset, p.Metadata, p.ErrorCode)
		}
	}
	for _, g := range resp.Groups {
		faults = append(faults, kerr.ErrorForCode(g.ErrorCode))
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				add(t.Topic, p.Partition, p.Offset, p.Metadata, p.ErrorCode)
			}
		}
	}
	return out, errors.Join(faults...)
}
