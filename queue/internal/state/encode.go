package state

// Type and Append of each record: its number, and its payload as record.go decodes it.

// Type returns the record's type.
func (r *Open) Type() byte { return typeOpen }

// Append encodes the record.
func (r *Open) Append(b []byte) []byte {
	b = putString(putUint(putInt(b, r.Now), r.Number), r.Process)
	return putString(putUint(b, r.Inode), r.Identity[:])
}

// Type returns the record's type.
func (r *CreateTopic) Type() byte { return typeCreateTopic }

// Append encodes the record.
func (r *CreateTopic) Append(b []byte) []byte {
	return putJSON(putString(putUint(putInt(b, r.Now), r.ID), r.Name), r.Config)
}

// Type returns the record's type.
func (r *DeleteTopic) Type() byte { return typeDeleteTopic }

// Append encodes the record.
func (r *DeleteTopic) Append(b []byte) []byte {
	return putString(putUint(putInt(b, r.Now), r.ID), r.Reason)
}

// Type returns the record's type.
func (r *CreateSub) Type() byte { return typeCreateSub }

// Append encodes the record.
func (r *CreateSub) Append(b []byte) []byte {
	b = putUint(putUint(putInt(b, r.Now), r.ID), r.Topic)
	return putJSON(putBool(putUint(putString(b, r.Name), r.Start), r.Rest), r.Config)
}

// Type returns the record's type.
func (r *DeleteSub) Type() byte { return typeDeleteSub }

// Append encodes the record.
func (r *DeleteSub) Append(b []byte) []byte {
	return putString(putUint(putInt(b, r.Now), r.ID), r.Reason)
}

// Type returns the record's type.
func (r *dueRecord) Type() byte { return typeDue }

// Append encodes the record.
func (r *dueRecord) Append(b []byte) []byte {
	return putUint(putUint(putInt(b, r.Now), r.Topic), uint64(r.Count))
}

// Type returns the record's type.
func (r *pullRecord) Type() byte { return typePull }

// Append encodes the record.
func (r *pullRecord) Append(b []byte) []byte { return putUint(putUint(b, r.Sub), r.To) }

// Type returns the record's type.
func (r *leaseRecord) Type() byte { return typeLease }

// Append encodes the record.
func (r *leaseRecord) Append(b []byte) []byte {
	b = putUint(putUint(putInt(b, r.Now), r.Sub), r.Session)
	b = putSeqs(putUint(putInt(b, r.Deadline), r.Gen), r.Seqs)
	for _, n := range r.Runs {
		b = putUint(b, n)
	}
	return b
}

// Type returns the record's type.
func (r *settleRecord) Type() byte { return typeSettle }

// Append encodes the record.
func (r *settleRecord) Append(b []byte) []byte {
	b = putUint(putUint(putInt(b, r.Now), r.Sub), r.Seq)
	b = append(b, byte(r.Outcome))
	return putString(putInt(b, r.Until), r.Reason)
}

// Type returns the record's type.
func (r *settleManyRecord) Type() byte { return typeSettleMany }

// Append encodes the record.
func (r *settleManyRecord) Append(b []byte) []byte {
	return putSeqs(append(putUint(putInt(b, r.Now), r.Sub), byte(r.Outcome)), r.Seqs)
}

// Type returns the record's type.
func (r *expireRecord) Type() byte { return typeExpire }

// Append encodes the record.
func (r *expireRecord) Append(b []byte) []byte {
	return putSeqs(putUint(putInt(b, r.Now), r.Sub), r.Seqs)
}

// Type returns the record's type.
func (r *wakeRecord) Type() byte { return typeWake }

// Append encodes the record.
func (r *wakeRecord) Append(b []byte) []byte {
	return putUint(putUint(putInt(b, r.Now), r.Sub), uint64(r.Count))
}

// Type returns the record's type.
func (r *OpenSession) Type() byte { return typeOpenSession }

// Append encodes the record.
func (r *OpenSession) Append(b []byte) []byte {
	b = putUint(putUint(putInt(b, r.Now), r.ID), r.Sub)
	b = putString(putString(b, r.Word), r.Name)
	return putString(putBool(b, r.Foreign), r.Process)
}

// Type returns the record's type.
func (r *EndSession) Type() byte { return typeEndSession }

// Append encodes the record.
func (r *EndSession) Append(b []byte) []byte {
	return append(putUint(putInt(b, r.Now), r.ID), byte(r.How))
}

// Type returns the record's type.
func (r *redriveRecord) Type() byte { return typeRedrive }

// Append encodes the record.
func (r *redriveRecord) Append(b []byte) []byte {
	return putBool(putUint(putUint(putInt(b, r.Now), r.Sub), r.Seq), r.Redo)
}

// Type returns the record's type.
func (r *dropDeadRecord) Type() byte { return typeDropDead }

// Append encodes the record.
func (r *dropDeadRecord) Append(b []byte) []byte {
	return putString(putUint(putUint(putInt(b, r.Now), r.Sub), r.Seq), r.Reason)
}

// Type returns the record's type.
func (r *TablePut) Type() byte { return typeTablePut }

// Append encodes the record.
func (r *TablePut) Append(b []byte) []byte {
	b = putUint(putString(putString(b, r.Table), r.Key), r.Version)
	if r.Value == nil {
		return putBool(b, false)
	}
	return putString(putBool(b, true), r.Value)
}

// Type returns the record's type.
func (r *trimRecord) Type() byte { return typeTrim }

// Append encodes the record.
func (r *trimRecord) Append(b []byte) []byte {
	return putUint(putUint(putInt(b, r.Now), r.Topic), r.To)
}

// Type returns the record's type.
func (r *ackLostRecord) Type() byte { return typeAckLost }

// Append encodes the record.
func (r *ackLostRecord) Append(b []byte) []byte { return putUint(putUint(b, r.Sub), r.Gen) }

// Type returns the record's type.
func (r *producedAgainRecord) Type() byte { return typeProducedAgain }

// Append encodes the record.
func (r *producedAgainRecord) Append(b []byte) []byte {
	return putUint(putUint(b, r.Topic), uint64(r.Count))
}

// Type returns the record's type.
func (r *committedRecord) Type() byte { return typeCommitted }

// Append encodes the record.
func (r *committedRecord) Append(b []byte) []byte { return putString(b, r.ID) }
