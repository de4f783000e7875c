package state

import (
	"github.com/ackwise/ackwise/idempotency"
)

// makeSetRecord makes a dedup set, or gives one that is there another bound.
type makeSetRecord struct {
	Now    int64
	ID     uint32
	Name   string
	Config setConfig
}

// bindSetRecord says by which rule a set's keys and sums are made.
type bindSetRecord struct {
	Now  int64
	Set  uint32
	Rule string
}

// asked is one ask for a key.
type asked struct {
	key   string
	sum   uint64
	until int64 // when its lease ends
}

// claimsRecord claims keys. The n-th gets the fence First + n.
type claimsRecord struct {
	Now   int64
	Set   uint32
	Call  uint64
	First uint64
	Asks  []asked
}

// settledClaim is what became of one claim.
type settledClaim struct {
	verb  idempotency.Verb
	key   string
	fence uint64
	until int64 // Extend: when its lease ends
}

// settleClaimsRecord settles claims of different keys. Those that are completed keep no result.
type settleClaimsRecord struct {
	Now    int64
	Set    uint32
	Claims []settledClaim
}

// completeClaimRecord completes a claim, and is where its result lives.
type completeClaimRecord struct {
	Now    int64
	Set    uint32
	Key    string
	Fence  uint64
	Result []byte
}

// onceRecord makes keys done in a transaction, without a claim.
type onceRecord struct {
	Now  int64
	Set  uint32
	Keys []asked // without until
}

// expireSetRecord lets go of the results before the sequence To, of claims that ran out a window
// ago, and where the last key that was done is free again, of all of them.
type expireSetRecord struct {
	Now int64
	Set uint32
	To  uint64
}

// placedRecord is a record that is applied when its place in the log is known.
type placedRecord interface {
	Record
	place(s *State, pos uint64, size int)
}

// Place applies a record that stands at pos and whose payload is size bytes long.
func (s *State) Place(r Record, pos uint64, size int) error {
	if err := r.check(s); err != nil {
		return err
	}
	if p, ok := r.(placedRecord); ok {
		p.place(s, pos, size)
	} else {
		r.apply(s)
	}
	return nil
}

// MakeSet returns the record that makes a dedup set.
func (s *State) MakeSet(now int64, name string, windowMillis int64, maxKeys int) Record {
	return &makeSetRecord{Now: now, ID: s.NextID(), Name: name,
		Config: setConfig{WindowMillis: windowMillis, MaxKeys: maxKeys}}
}

// Bound returns the record that gives the set another bound.
func (x *Set) Bound(now int64, maxKeys int) Record {
	return &makeSetRecord{Now: now, ID: x.ID, Name: x.Name,
		Config: setConfig{WindowMillis: x.config.WindowMillis, MaxKeys: maxKeys}}
}

// Bind returns the record that binds the set's rule.
func (x *Set) Bind(now int64, rule string) Record {
	return &bindSetRecord{Now: now, Set: x.ID, Rule: rule}
}

// Settle returns the record that settles claims that the set knows, of different keys. It is to be
// placed. One with a result stands alone.
func (x *Set) Settle(now int64, all []idempotency.Settlement) Record {
	if c := &all[0]; c.Verb == idempotency.Complete && c.Result != nil {
		return &completeClaimRecord{Now: now, Set: x.ID, Key: c.Key, Fence: c.Fence,
			Result: c.Result}
	}
	r := &settleClaimsRecord{Now: now, Set: x.ID, Claims: make([]settledClaim, len(all))}
	for i := range all {
		c := &all[i]
		r.Claims[i] = settledClaim{verb: c.Verb, key: c.Key, fence: c.Fence,
			until: now + c.Lease.Milliseconds()}
	}
	return r
}

// Once returns the record that makes keys done without a claim. It is to be placed.
func (x *Set) Once(now int64, asks []idempotency.Ask) Record {
	r := &onceRecord{Now: now, Set: x.ID, Keys: make([]asked, len(asks))}
	for i := range asks {
		r.Keys[i] = asked{key: asks[i].Key, sum: sumOf(asks[i].Sum)}
	}
	return r
}

func (r *makeSetRecord) check(s *State) error {
	x := s.sets[r.ID]
	return fits(s.setByName[r.Name] == x && (x == nil || x.config.WindowMillis ==
		r.Config.WindowMillis))
}
func (r *makeSetRecord) apply(s *State) {
	s.Now, s.lastID = max(s.Now, r.Now), max(s.lastID, r.ID)
	x := s.sets[r.ID]
	if x == nil {
		x = s.newSet(r.ID, r.Name)
	}
	x.config = r.Config
	if s.index != nil {
		s.index.SetMade(x)
	}
}

func (s *State) newSet(id uint32, name string) *Set {
	x := &Set{ID: id, Name: name, state: s, claims: make(map[string]claim),
		results: index{chunkLen: s.chunkLen}}
	s.sets[id], s.setByName[name] = x, x
	return x
}

func (r *bindSetRecord) check(s *State) error { return fits(s.sets[r.Set] != nil) }
func (r *bindSetRecord) apply(s *State) {
	s.Now = max(s.Now, r.Now)
	s.sets[r.Set].Rule = r.Rule
}

func (r *claimsRecord) check(s *State) error { return fits(s.sets[r.Set] != nil && r.First > 0) }
func (r *claimsRecord) apply(s *State) {
	s.Now = max(s.Now, r.Now)
	x := s.sets[r.Set]
	for i := range r.Asks {
		x.claim(r, i)
	}
	s.wakeSet(x)
}

func (r *settleClaimsRecord) check(s *State) error {
	x := s.sets[r.Set]
	if x == nil {
		return errUnknownNumber
	}
	for i := range r.Claims {
		if c := &r.Claims[i]; x.claims[c.key].fence != c.fence || c.fence == 0 {
			return errUnknownNumber
		}
	}
	return nil
}
func (r *settleClaimsRecord) apply(s *State) { r.place(s, 0, 0) }
func (r *settleClaimsRecord) place(s *State, pos uint64, size int) {
	s.Now = max(s.Now, r.Now)
	x := s.sets[r.Set]
	for i := range r.Claims {
		settled := &r.Claims[i]
		c, known := x.claims[settled.key]
		if !known || c.fence != settled.fence { // settled by this record already
			continue
		}
		switch settled.verb {
		case idempotency.Complete:
			s.done(x, settled.key, c.sum<<1, placed{now: r.Now, pos: pos, size: size})
			s.rememberCompletion(completion{c.fence, x.hash(settled.key)})
		case idempotency.Release:
			delete(x.claims, settled.key)
		case idempotency.Extend:
			c.until = settled.until
			x.claims[settled.key] = c
		}
	}
	s.wakeSet(x)
}

func (r *completeClaimRecord) check(s *State) error {
	x := s.sets[r.Set]
	return fits(x != nil && r.Fence != 0 && x.claims[r.Key].fence == r.Fence)
}
func (r *completeClaimRecord) apply(s *State) { r.place(s, 0, 0) }
func (r *completeClaimRecord) place(s *State, pos uint64, size int) {
	x := s.sets[r.Set]
	s.done(x, r.Key, x.claims[r.Key].sum<<1|1,
		placed{now: r.Now, pos: pos, size: size, kept: true})
	s.rememberCompletion(completion{r.Fence, x.hash(r.Key)})
	s.wakeSet(x)
}

func (r *onceRecord) check(s *State) error { return fits(s.sets[r.Set] != nil) }
func (r *onceRecord) apply(s *State)       { r.place(s, 0, 0) }
func (r *onceRecord) place(s *State, pos uint64, size int) {
	x := s.sets[r.Set]
	for i := range r.Keys {
		k := &r.Keys[i]
		sum := k.sum
		if sum == 0 {
			sum = x.claims[k.key].sum
		}
		s.done(x, k.key, sum<<1, placed{now: r.Now, pos: pos, size: size})
	}
	s.wakeSet(x)
}

func (r *expireSetRecord) check(s *State) error { return fits(s.sets[r.Set] != nil) }
func (r *expireSetRecord) apply(s *State) {
	s.Now = max(s.Now, r.Now)
	x := s.sets[r.Set]
	for to := min(r.To, x.results.next); x.results.first < to; {
		e := x.results.at(x.results.first, &x.results.head)
		x.bytes -= int64(e.size)
		s.unpin(e.pos, e.size)
		x.results.dropFirst()
	}
	for key, c := range x.claims {
		if x.abandoned(c, r.Now) {
			delete(x.claims, key)
		}
	}
	if x.forgets(r.Now) {
		x.last = 0
	}
}

// setRecord decodes the records of dedup sets.
func (d *decoder) setRecord(typ byte) Record {
	switch typ {
	case typeMakeSet:
		r := &makeSetRecord{Now: d.int(), ID: d.u32(), Name: d.string()}
		d.json(&r.Config)
		return r
	case typeBindSet:
		return &bindSetRecord{Now: d.int(), Set: d.u32(), Rule: d.string()}
	case typeClaims:
		r := &claimsRecord{Now: d.int(), Set: d.u32(), Call: d.uint(), First: d.uint()}
		r.Asks = make([]asked, d.count())
		for i := range r.Asks {
			r.Asks[i] = asked{key: d.string(), sum: d.uint(), until: r.Now + d.int()}
		}
		return r
	case typeSettleClaims:
		r := &settleClaimsRecord{Now: d.int(), Set: d.u32()}
		r.Claims = make([]settledClaim, d.count())
		for i := range r.Claims {
			c := &r.Claims[i]
			*c = settledClaim{verb: idempotency.Verb(d.byte()), key: d.string(), fence: d.uint()}
			switch c.verb {
			case idempotency.Complete, idempotency.Release:
			case idempotency.Extend:
				c.until = r.Now + d.int()
			default:
				d.fail()
			}
		}
		return r
	case typeCompleteClaim:
		return &completeClaimRecord{Now: d.int(), Set: d.u32(), Key: d.string(), Fence: d.uint(),
			Result: d.bytes()}
	case typeOnce:
		r := &onceRecord{Now: d.int(), Set: d.u32()}
		r.Keys = make([]asked, d.count())
		for i := range r.Keys {
			r.Keys[i] = asked{key: d.string(), sum: d.uint()}
		}
		return r
	case typeExpireSet:
		return &expireSetRecord{Now: d.int(), Set: d.u32(), To: d.uint()}
	}
	return nil
}

// Result reads the result of a key from the record that holds it. It is a part of payload.
func (x *Set) Result(payload []byte, key string) ([]byte, error) {
	r, err := decodeRecord(typeCompleteClaim, payload)
	if err != nil {
		return nil, err
	}
	c := r.(*completeClaimRecord)
	return c.Result, fits(c.Set == x.ID && c.Key == key)
}

// Type returns the record's type.
func (r *makeSetRecord) Type() byte { return typeMakeSet }

// Append encodes the record.
func (r *makeSetRecord) Append(b []byte) []byte {
	return putJSON(putString(putUint(putInt(b, r.Now), r.ID), r.Name), r.Config)
}

// Type returns the record's type.
func (r *bindSetRecord) Type() byte { return typeBindSet }

// Append encodes the record.
func (r *bindSetRecord) Append(b []byte) []byte {
	return putString(putUint(putInt(b, r.Now), r.Set), r.Rule)
}

// Type returns the record's type.
func (r *claimsRecord) Type() byte { return typeClaims }

// Append encodes the record.
func (r *claimsRecord) Append(b []byte) []byte {
	b = putUint(putUint(putUint(putInt(b, r.Now), r.Set), r.Call), r.First)
	b = putUint(b, uint64(len(r.Asks)))
	for i := range r.Asks {
		a := &r.Asks[i]
		b = putInt(putUint(putString(b, a.key), a.sum), a.until-r.Now)
	}
	return b
}

// Type returns the record's type.
func (r *settleClaimsRecord) Type() byte { return typeSettleClaims }

// Append encodes the record.
func (r *settleClaimsRecord) Append(b []byte) []byte {
	b = putUint(putUint(putInt(b, r.Now), r.Set), uint64(len(r.Claims)))
	for i := range r.Claims {
		c := &r.Claims[i]
		b = putUint(putString(append(b, byte(c.verb)), c.key), c.fence)
		if c.verb == idempotency.Extend {
			b = putInt(b, c.until-r.Now)
		}
	}
	return b
}

// Type returns the record's type.
func (r *completeClaimRecord) Type() byte { return typeCompleteClaim }

// Append encodes the record.
func (r *completeClaimRecord) Append(b []byte) []byte {
	b = putString(putUint(putInt(b, r.Now), r.Set), r.Key)
	return putString(putUint(b, r.Fence), r.Result)
}

// Type returns the record's type.
func (r *onceRecord) Type() byte { return typeOnce }

// Append encodes the record.
func (r *onceRecord) Append(b []byte) []byte {
	b = putUint(putUint(putInt(b, r.Now), r.Set), uint64(len(r.Keys)))
	for i := range r.Keys {
		b = putUint(putString(b, r.Keys[i].key), r.Keys[i].sum)
	}
	return b
}

// Type returns the record's type.
func (r *expireSetRecord) Type() byte { return typeExpireSet }

// Append encodes the record.
func (r *expireSetRecord) Append(b []byte) []byte {
	return putUint(putUint(putInt(b, r.Now), r.Set), r.To)
}
